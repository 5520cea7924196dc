"""A judge who says how much better an answer is, on WARP's scale of seven steps, asked in both orders."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from warmkit.common.progress import Advance
from warmkit.errors import EndpointError
from warmkit.evaluation.pool import Pool, check_comparable
from warmkit.evaluation.win_rates import STEPS, Match
from warmkit.labeling.asking import ask_all
from warmkit.labeling.judge import EndpointJudge, Question, render_prompt
from warmkit.labeling.label import Failure

Array = NDArray[np.float64]

DECISION = """\
Think first: in a few sentences, name the strengths and weaknesses of both answers and weigh them. Then decide which is
better, and by how much. Write the decision alone on the last line, as one of

Verdict: 1 is much better
Verdict: 1 is better
Verdict: 1 is slightly better
Verdict: tie
Verdict: 2 is slightly better
Verdict: 2 is better
Verdict: 2 is much better"""

_VERDICT = re.compile(r"[\s*_]*Verdict:[\s*_]*(?:tie|([12]) is (slightly |much )?better)[\s*_.]*")
_SIZES: dict[str, float] = dict(zip(("slightly ", "", "much "), STEPS))


def parse_verdict(answer: str) -> float:
    r"""Read the verdict on the last line that is not blank, positive for the first answer.

    Emphasis around it is allowed, other words are not.

    Raises:
        ValueError: If that line is anything else.

    Source: WARP (Ramé et al., 2024), table 1: 1.5, 1 and 0.5 for "much better", "better" and "slightly better", 0 for a tie.

    Examples:
        >>> parse_verdict("Both are right, the second is shorter.\n\n**Verdict: 2 is slightly better**")
        -0.5
    """
    lines = answer.strip().splitlines()
    last = lines[-1] if lines else ""
    match = _VERDICT.fullmatch(last)
    if match is None:
        raise ValueError(f"expected the answer to end in a line like 'Verdict: 1 is better' or 'Verdict: tie', found {last!r}")
    if match[1] is None:
        return 0.0
    return _SIZES[match[2] or ""] * (1 if match[1] == "1" else -1)


def match_by_judge(
    a: Pool, b: Pool, judge: EndpointJudge, concurrency: int = 8, advance: Advance | None = None
) -> tuple[Match, list[Failure]]:
    """Ask a judge about every two answers, in both orders.

    An answer wins if it is preferred in both orders; everything else is a tie. The step is the mean of both orders. Answers
    that are the same tie without a question.

    Args:
        a: Answers of the first policy, K to each of N prompts.
        b: Answers of the second, to the same prompts; sample k meets sample k.
        judge: Who is asked.
        concurrency: Questions in flight at a time.
        advance: Called after each question.

    Returns:
        The match, NaN where a question has no answer, and those failures.

    Raises:
        MismatchError: If the prompts or the numbers of answers differ.

    Source: Zheng et al. (2023), section 3.4, for both orders; WARP (Ramé et al., 2024), table 1, for the scale.
    """
    check_comparable({"the first": a, "the second": b})
    places = [(n, k) for n in range(len(a.prompts)) for k in range(a.samples) if a.texts[n][k] != b.texts[n][k]]
    questions = [question for n, k in places for question in _both_orders(a, b, n, k)]
    answers = ask_all(questions, lambda batch: [_ask(judge, each) for each in batch], concurrency, advance=advance)
    forward, backward = np.zeros((2, len(a.prompts), a.samples))
    agreements, failed = np.full_like(forward, np.nan), list[Failure]()
    for (n, k), first, second in zip(places, answers[::2], answers[1::2]):
        if isinstance(problem := first, EndpointError) or isinstance(problem := second, EndpointError):
            failed.append(Failure(a.prompts[n].where, str(problem)))
            forward[n, k] = backward[n, k] = np.nan
        else:
            forward[n, k], backward[n, k] = first, -second
            agreements[n, k] = np.sign(first) == -np.sign(second)
    return both_orders(forward, backward, agreements), failed


def both_orders(forward: Array, backward: Array, agreements: Array) -> Match:
    """Return what two orders say together.

    Args:
        forward: Steps when A was shown first, positive for A, [N, K]; NaN where there is none.
        backward: Steps when B was shown first, positive for A all the same, [N, K].
        agreements: See `Match`.
    """
    same = np.sign(forward) == np.sign(backward)
    outcomes = 0.5 + 0.5 * np.where(same | np.isnan(forward), np.sign(forward), 0.0)
    return Match(outcomes, (forward + backward) / 2, agreements)


def _ask(judge: EndpointJudge, question: Question) -> float:
    return judge.ask(render_prompt(question, judge.criteria, DECISION), parse_verdict)


def _both_orders(a: Pool, b: Pool, n: int, k: int) -> Sequence[Question]:
    prompt, first, second = a.prompts[n].content, a.texts[n][k], b.texts[n][k]
    return Question(prompt, first, second), Question(prompt, second, first)
