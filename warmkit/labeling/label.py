"""Label comparisons: ask a judge in both orders, keep what it says twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from warmkit.common.progress import Advance
from warmkit.errors import EndpointError
from warmkit.labeling.asking import ask_all
from warmkit.labeling.judge import Judge, Preference, Question, Text
from warmkit.labeling.label_rows import Comparison, inconsistent_path, write_lines

Inconsistent: TypeAlias = Literal["drop", "keep-first"]


@dataclass(frozen=True)
class Verdict:
    """What a judge said of one comparison.

    Attributes:
        comparison: The two answers.
        forward: Which it preferred when they were shown in order.
        backward: The same when they were shown in reverse; a position, so a judge that means the same answer differs.
    """

    comparison: Comparison
    forward: Preference
    backward: Preference

    @property
    def agreement(self) -> bool:
        """Whether the judge preferred the same answer in both orders."""
        return self.forward != self.backward

    def pair(self) -> tuple[Text, Text]:
        """Return chosen and rejected, by the first order where the two contradict each other."""
        first, second = self.comparison.answers
        return (first, second) if self.forward == 1 else (second, first)


@dataclass(frozen=True)
class Failure:
    """A comparison that could not be labelled: where it stands and what went wrong."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class LabelResult:
    """Labels and failures, each in the order of the rows.

    Attributes:
        judge: The judge's name.
        verdicts: Every comparison that got two answers.
        failed: The others.
    """

    judge: str
    verdicts: list[Verdict]
    failed: list[Failure]

    @property
    def inconsistent(self) -> list[Verdict]:
        """Verdicts whose two orders contradict each other."""
        return [verdict for verdict in self.verdicts if not verdict.agreement]


def label(rows: Sequence[Comparison], judge: Judge, concurrency: int = 8, advance: Advance | None = None) -> LabelResult:
    """Ask a judge about every comparison, in both orders.

    Args:
        rows: What to label.
        judge: Who is asked.
        concurrency: Questions, or batches of the judge's size, in flight at a time.
        advance: Called after each batch with the number of its questions and of all questions.

    Returns:
        A verdict for every comparison with two answers, a failure for every other one.

    Raises:
        WarmkitError: What the judge raises besides EndpointError.

    Source: Ramé et al., 2024 (WARM), appendix C.2: both orders, against position bias.
    """
    questions = [question for row in rows for question in _both_orders(row)]
    answers = ask_all(questions, judge.prefer, concurrency, judge.batch_size, advance)
    verdicts: list[Verdict] = []
    failed: list[Failure] = []
    for row, forward, backward in zip(rows, answers[::2], answers[1::2]):
        if isinstance(forward, EndpointError):
            failed.append(Failure(row.where, str(forward)))
        elif isinstance(backward, EndpointError):
            failed.append(Failure(row.where, str(backward)))
        else:
            verdicts.append(Verdict(row, forward, backward))
    return LabelResult(judge.name, verdicts, failed)


def _both_orders(row: Comparison) -> tuple[Question, Question]:
    first, second = row.answers
    return Question(row.prompt, first, second), Question(row.prompt, second, first)


def write_labels(result: LabelResult, output: Path, inconsistent: Inconsistent = "drop", force: bool = True) -> int:
    """Write the labelled pairs to `output`, and dropped rows to `inconsistent_path(output)`, each in one step.

    Args:
        result: Labels.
        output: Rows of `prompt`, `chosen`, `rejected` and `label: {agreement, judge}`.
        inconsistent: What becomes of contradictions: `drop` leaves them out, and into a file of their own with
            `responses`, which can be labelled again; `keep-first` takes what was said in the first order.
        force: Replace files that are there.

    Returns:
        The number of pairs in `output`.

    Raises:
        OutputError: If a file cannot be written.
    """
    dropped = result.inconsistent if inconsistent == "drop" else []
    kept = [verdict for verdict in result.verdicts if verdict.agreement or inconsistent == "keep-first"]
    aside = inconsistent_path(output)
    if dropped or aside.exists():  # an older one would belong to other labels
        write_lines([_row(each, result.judge, responses=list(each.comparison.answers)) for each in dropped], aside, force)
    pairs = [(each, *each.pair()) for each in kept]
    write_lines([_row(each, result.judge, chosen=chosen, rejected=other) for each, chosen, other in pairs], output, force)
    return len(pairs)


def _row(verdict: Verdict, judge: str, **answers: Any) -> dict[str, Any]:
    return {"prompt": verdict.comparison.prompt, **answers, "label": {"agreement": verdict.agreement, "judge": judge}}
