"""Both orders are asked, agreement makes a label, and nothing is asked twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.labeling.server import Reply, Seen, Server, fails, prefers_good, prefers_the_first, says
from warmkit.data.preferences import read_pairs
from warmkit.errors import OutputError
from warmkit.labeling.cache import Cache
from warmkit.labeling.endpoint import Endpoint
from warmkit.labeling.judge import EndpointJudge, Preference, Question, RewardModelJudge
from warmkit.labeling.label import LabelResult, label, write_labels
from warmkit.labeling.label_rows import Comparison, read_comparisons


def rows(count: int) -> list[Comparison]:
    """Return rows in which the good answer stands first and second in turn."""
    answers = [(f"good {number}", f"bad {number}") for number in range(count)]
    return [Comparison(f"question {n}", pair if n % 2 else pair[::-1], f"rows.jsonl:{n + 1}") for n, pair in enumerate(answers)]


@pytest.fixture
def ask(connect: Callable[..., Endpoint]) -> Callable[..., LabelResult]:
    def call(questions: Sequence[Comparison], concurrency: int = 4, cache: Cache | None = None) -> LabelResult:
        with cache or Cache(":memory:") as opened:
            return label(questions, EndpointJudge(connect(), "judge", opened), concurrency)

    return call


Ask = Callable[..., LabelResult]


# ---- orders ------------------------------------------------------------------------------------------------------------


def test_both_orders_are_asked(server: Server, ask: Ask) -> None:
    ask(rows(1), concurrency=1)
    assert [seen.answers for seen in server.seen] == [("bad 0", "good 0"), ("good 0", "bad 0")]


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_answers_that_agree_make_a_label(server: Server, ask: Ask, concurrency: int) -> None:
    result = ask(rows(10), concurrency)
    assert [verdict.pair() for verdict in result.verdicts] == [(f"good {n}", f"bad {n}") for n in range(10)]
    assert (result.inconsistent, result.failed) == ([], [])
    assert len(server.seen) == 20


def test_a_judge_with_a_position_bias_agrees_with_itself_on_nothing(server: Server, ask: Ask) -> None:
    server.judge = prefers_the_first
    result = ask(rows(6))
    assert result.inconsistent == result.verdicts
    assert len(result.inconsistent) == 6


def test_no_rows_make_no_labels(ask: Ask) -> None:
    assert ask([]) == LabelResult("judge", [], [])


# ---- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (says("Hard to say."), "expected the answer to end in the line 'Preferred: 1' or 'Preferred: 2', found 'Hard to say.'"),
        (fails(500, "oops"), "HTTP 500: oops"),
        (fails(400, "too long"), "HTTP 400: too long"),
    ],
)
def test_a_row_that_fails_is_named_and_the_others_are_labelled(server: Server, ask: Ask, reply: Reply, reason: str) -> None:
    server.judge = lambda seen: reply if "question 2" in seen.text else prefers_good(seen)
    result = ask(rows(5))
    assert [str(failure).split(" (3 attempts)")[0] for failure in result.failed] == [f"rows.jsonl:3: {reason}"]
    assert [verdict.comparison.where for verdict in result.verdicts] == [f"rows.jsonl:{n}" for n in (1, 2, 4, 5)]


def test_a_row_of_which_one_order_fails_has_no_label(server: Server, ask: Ask) -> None:
    server.judge = lambda seen: fails(400) if seen.answers[1] == "bad 0" else prefers_good(seen)
    assert [failure.where for failure in ask(rows(1)).failed] == ["rows.jsonl:1"]


def test_a_second_run_asks_only_for_what_is_missing(server: Server, ask: Ask, tmp_path: Path) -> None:
    server.judge = lambda seen: fails(400) if "question 2" in seen.text else prefers_good(seen)
    first = ask(rows(5), cache=Cache(tmp_path / "cache"))
    server.judge, asked = prefers_good, len(server.seen)
    second = ask(rows(5), cache=Cache(tmp_path / "cache"))
    assert (len(first.failed), len(second.failed)) == (1, 0)
    assert ["question 2" in seen.text for seen in server.seen[asked:]] == [True, True]
    assert [verdict.pair()[0] for verdict in second.verdicts] == [f"good {n}" for n in range(5)]


def test_a_wrong_key_is_tried_by_no_more_requests_than_are_in_flight(server: Server, ask: Ask) -> None:
    server.judge = lambda _: fails(401, "wrong key")
    result = ask(rows(50), concurrency=3)
    assert {failure.reason for failure in result.failed} == {"HTTP 401: wrong key"}
    assert len(result.failed) == 50
    assert len(server.seen) <= 3


def test_an_error_that_is_not_the_endpoints_ends_the_run() -> None:
    class Broken:
        name, batch_size = "broken", 1

        def prefer(self, questions: Sequence[Question]) -> list[Preference]:
            raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="the disk is full"):
        label(rows(20), Broken(), concurrency=2)


# ---- concurrency -------------------------------------------------------------------------------------------------------


def test_questions_overlap(server: Server, ask: Ask) -> None:
    together = threading.Barrier(4, timeout=20)

    def meet(seen: Seen) -> Reply:
        together.wait()  # breaks, and with it the request, unless four are in flight at once
        return prefers_good(seen)

    server.judge = meet
    assert len(ask(rows(6), concurrency=4).verdicts) == 6


def test_no_more_questions_are_in_flight_than_asked_for(server: Server, ask: Ask) -> None:
    flying, most, lock = 0, 0, threading.Lock()

    def count(seen: Seen) -> Reply:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        reply = prefers_good(seen)
        with lock:
            flying -= 1
        return reply

    server.judge = count
    ask(rows(20), concurrency=3)
    assert most <= 3


def test_progress_counts_every_question_once(connect: Callable[..., Endpoint]) -> None:
    steps: list[tuple[int, int]] = []
    with Cache(":memory:") as cache:
        label(rows(5), EndpointJudge(connect(), "judge", cache), 4, lambda done, total: steps.append((done, total)))
    assert steps == [(1, 10)] * 10


# ---- a reward model ----------------------------------------------------------------------------------------------------


def test_a_reward_model_labels_in_batches() -> None:
    judge = RewardModelJudge(lambda pairs: [1.0 if str(answer).startswith("good") else 0.0 for _, answer in pairs], "rm")
    result = label(rows(100), judge)
    assert [verdict.pair()[0] for verdict in result.verdicts] == [f"good {n}" for n in range(100)]
    assert result.inconsistent == []


def test_equal_scores_are_inconsistent() -> None:
    assert len(label(rows(3), RewardModelJudge(lambda pairs: [0.0] * len(pairs), "rm")).inconsistent) == 3


# ---- what is written ---------------------------------------------------------------------------------------------------


def mixed(seen: Seen) -> Reply:
    return prefers_the_first(seen) if "question 1" in seen.text else prefers_good(seen)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_contradictions_are_left_out_into_a_file_of_their_own(server: Server, ask: Ask, tmp_path: Path) -> None:
    server.judge = mixed
    write_labels(ask(rows(3)), tmp_path / "out.jsonl")
    label_of = {"agreement": True, "judge": "judge"}
    assert lines(tmp_path / "out.jsonl") == [
        {"prompt": f"question {n}", "chosen": f"good {n}", "rejected": f"bad {n}", "label": label_of} for n in (0, 2)
    ]
    assert lines(tmp_path / "out.inconsistent.jsonl") == [
        {"prompt": "question 1", "responses": ["good 1", "bad 1"], "label": {"agreement": False, "judge": "judge"}}
    ]


def test_dropped_rows_can_be_labelled_again(server: Server, ask: Ask, tmp_path: Path) -> None:
    server.judge = mixed
    write_labels(ask(rows(3)), tmp_path / "out.jsonl")
    (again,) = read_comparisons(tmp_path / "out.inconsistent.jsonl")
    assert (again.prompt, set(again.answers)) == ("question 1", {"good 1", "bad 1"})


def test_keep_first_labels_contradictions_by_the_first_order(server: Server, ask: Ask, tmp_path: Path) -> None:
    server.judge = prefers_the_first
    write_labels(ask(rows(4)), tmp_path / "out.jsonl", "keep-first")
    assert [row["chosen"] for row in lines(tmp_path / "out.jsonl")] == ["bad 0", "good 1", "bad 2", "good 3"]
    assert {json.dumps(row["label"]) for row in lines(tmp_path / "out.jsonl")} == {'{"agreement": false, "judge": "judge"}'}
    assert not (tmp_path / "out.inconsistent.jsonl").exists()


def test_contradictions_of_an_earlier_run_do_not_stay(server: Server, ask: Ask, tmp_path: Path) -> None:
    server.judge = prefers_the_first
    write_labels(ask(rows(4)), tmp_path / "out.jsonl")
    server.judge = prefers_good
    write_labels(ask(rows(4)), tmp_path / "out.jsonl")
    assert lines(tmp_path / "out.inconsistent.jsonl") == []
    assert len(lines(tmp_path / "out.jsonl")) == 4


def test_labelled_pairs_are_read_as_preference_pairs(ask: Ask, tmp_path: Path) -> None:
    write_labels(ask(rows(4)), tmp_path / "out.jsonl")
    assert [(pair.chosen, pair.rejected) for pair in read_pairs(tmp_path / "out.jsonl")] == [
        (f"good {n}", f"bad {n}") for n in range(4)
    ]
