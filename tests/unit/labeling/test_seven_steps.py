"""Both orders are asked, a win is one in both, and the steps are those of the paper."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from tests.unit.labeling.server import KEY, Reply, Seen, Server, fails, says
from warmkit.data.prompts import Prompt
from warmkit.errors import MismatchError
from warmkit.evaluation.pool import Pool
from warmkit.evaluation.win_rates import Match
from warmkit.labeling.cache import Cache
from warmkit.labeling.endpoint import Endpoint
from warmkit.labeling.judge import EndpointJudge, Question, render_prompt
from warmkit.labeling.label import Failure
from warmkit.labeling.seven_steps import DECISION, match_by_judge, parse_verdict

PROMPTS = [Prompt(f"question {n}", f"prompts.jsonl:{n + 1}") for n in range(4)]
SIZES = {3: "much better", 2: "better", 1: "slightly better"}


def pool(*texts: str) -> Pool:
    return Pool(PROMPTS[: len(texts)], [[each] for each in texts])


def prefers_digits(seen: Seen) -> Reply:
    """Judge by the number that an answer holds; up to three steps."""
    first, second = (int(re.search(r"\d", each)[0]) for each in seen.answers)  # pyright: ignore[reportOptionalSubscript]
    if first == second:
        return says("They are alike.\nVerdict: tie")
    return says(f"Hm.\n\n**Verdict: {1 if first > second else 2} is {SIZES[min(3, abs(first - second))]}**")


@pytest.fixture
def play(server: Server, connect: Callable[..., Endpoint]) -> Callable[..., tuple[Match, list[Failure]]]:
    server.judge = prefers_digits

    def call(a: Pool, b: Pool, cache: Cache | None = None) -> tuple[Match, list[Failure]]:
        with cache or Cache(":memory:") as opened:
            return match_by_judge(a, b, EndpointJudge(connect(), "judge", opened), concurrency=2)

    return call


Play = Callable[..., tuple[Match, list[Failure]]]


# ---- the verdict ---------------------------------------------------------------------------------------------------------


def test_the_seven_verdicts_have_the_scores_of_the_paper() -> None:
    offered = [line for line in DECISION.splitlines() if line.startswith("Verdict:")]
    assert [parse_verdict(f"Why.\n{line}\n") for line in offered] == [1.5, 1, 0.5, 0, -0.5, -1, -1.5]


@pytest.mark.parametrize("answer", ["**Verdict: tie**", "Verdict: tie.", "Verdict:tie", "Verdict: 1 is better\nVerdict: tie"])
def test_emphasis_and_earlier_lines_do_not_matter(answer: str) -> None:
    assert parse_verdict(answer) == 0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "tie",
        "Verdict: 3 is better",
        "Verdict: 1",
        "Verdict: 1 is worse",
        "Verdict: tie, almost",
        "No Verdict: tie",
        "Verdict: 1 is much",
        "Verdict: tie is better",
        "Verdict: 1 is better or tie",
        "Verdict: tie\nOr is it?",
        "Preferred: 1",
    ],
)
def test_anything_else_is_no_verdict(answer: str) -> None:
    with pytest.raises(ValueError, match="expected the answer to end in a line like"):
        parse_verdict(answer)


# ---- the match -----------------------------------------------------------------------------------------------------------


def test_both_orders_are_asked_for_a_verdict_on_the_scale(server: Server, play: Play) -> None:
    match, failed = play(pool("a 3"), pool("b 1"))
    assert sorted(seen.answers for seen in server.seen) == [("a 3", "b 1"), ("b 1", "a 3")]
    asked = {seen.text for seen in server.seen}
    assert render_prompt(Question("question 0", "a 3", "b 1"), decision=DECISION) in asked
    assert (match.outcomes, match.steps, match.agreements, failed) == ([[1]], [[1]], [[1]], [])


def test_verdicts_make_outcomes_steps_and_agreements(play: Play) -> None:
    a, b = pool("a 9", "a 1", "a 3", "a 0"), pool("b 1", "b 2", "b 3", "b 2")
    match, _ = play(a, b)
    assert match.outcomes.tolist() == [[1], [0], [0.5], [0]]
    assert match.steps.tolist() == [[1.5], [-0.5], [0], [-1]]
    assert match.consistency == 1
    back, _ = play(b, a)
    assert np.array_equal(back.outcomes, match.reversed().outcomes)
    assert np.array_equal(back.steps, match.reversed().steps)


def test_a_judge_who_always_means_the_first_makes_ties_and_never_agrees(server: Server, play: Play) -> None:
    server.judge = lambda _: says("Verdict: 1 is better")
    match, _ = play(pool("a 1", "a 2"), pool("b 1", "b 2"))
    assert (match.wins, match.ties, match.losses) == (0, 2, 0)
    assert (match.win_rate.value, match.score.value, match.consistency) == (0.5, 0, 0)


def test_a_win_is_one_in_both_orders_and_the_step_is_the_mean(server: Server, play: Play) -> None:
    wanted = {"a": "1 is much better", "b": "tie"}  # by the answer that is shown first
    server.judge = lambda seen: says(f"Verdict: {wanted[seen.answers[0][0]]}")
    match, _ = play(pool("a 1"), pool("b 1"))
    assert (match.outcomes, match.steps, match.consistency) == ([[0.5]], [[0.75]], 0)
    wanted["b"] = "2 is slightly better"
    match, _ = play(pool("a 1"), pool("b 1"))
    assert (match.outcomes, match.steps, match.consistency) == ([[1]], [[1]], 1)


def test_the_same_answer_ties_without_a_question(server: Server, play: Play) -> None:
    match, _ = play(pool("same", "a 2"), pool("same", "b 1"))
    assert match.outcomes.tolist() == [[0.5], [1]]
    assert len(server.seen) == 2
    alone, _ = play(pool("same"), pool("same"))
    assert (alone.win_rate.value, alone.consistency) == (0.5, None)
    assert len(server.seen) == 2


def test_a_second_match_is_free(server: Server, play: Play, tmp_path: object) -> None:
    for _ in range(2):
        play(pool("a 1", "a 2"), pool("b 2", "b 0"), Cache(f"{tmp_path}/cache.sqlite"))
    assert len(server.seen) == 4


def test_a_comparison_that_fails_is_named_and_does_not_count(server: Server, play: Play) -> None:
    server.judge = lambda seen: fails(400, f"too long {KEY}") if seen.answers[0] == "b 2" else prefers_digits(seen)
    match, failed = play(pool("a 3", "a 3"), pool("b 1", "b 2"))
    assert [str(each) for each in failed] == ["prompts.jsonl:2: HTTP 400: too long [key]"]
    assert np.isnan(match.outcomes[1, 0])
    assert np.isnan(match.steps[1, 0])
    assert (match.wins, match.win_rate.value, match.consistency) == (1, 1, 1)


def test_answers_to_other_prompts_are_refused(play: Play) -> None:
    with pytest.raises(MismatchError, match="expected the prompts that the first answered"):
        play(pool("a"), pool("b", "b"))
