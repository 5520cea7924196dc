"""The prompt shows what is compared, only a clear decision counts, and a reward model prefers the higher score."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tests.unit.labeling.server import Server, says
from warmkit.errors import NonFiniteError
from warmkit.labeling.cache import Cache
from warmkit.labeling.endpoint import Endpoint
from warmkit.labeling.judge import (
    CRITERIA,
    EndpointJudge,
    Judge,
    Question,
    RewardModelJudge,
    Text,
    parse_preference,
    render_prompt,
)

QUESTION = Question("What is 2 + 2?", "4, a good answer", "5")


# ---- the prompt --------------------------------------------------------------------------------------------------------


def test_the_prompt_shows_question_answers_in_order_and_criteria() -> None:
    text = render_prompt(QUESTION)
    places = [text.index(part) for part in (CRITERIA, "What is 2 + 2?", "4, a good answer", "\n5\n")]
    assert places == sorted(places)


def test_criteria_replace_what_is_judged() -> None:
    text = render_prompt(QUESTION, "Prefer the {shorter} one.")
    assert "Prefer the {shorter} one." in text
    assert CRITERIA not in text


def test_messages_are_lines_of_role_and_content() -> None:
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi {name}"}]
    text = render_prompt(Question(prompt, [{"role": "assistant", "content": "Hello"}], "Hi"))
    assert "<prompt>\nsystem: Be brief.\nuser: Hi {name}\n</prompt>" in text
    assert "<answer-1>\nassistant: Hello\n</answer-1>" in text


# ---- the decision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "Preferred: 2",
        "Because.\n\nPreferred: 2\n\n",
        "**Preferred: 2**",
        "**Preferred:** 2.",
        "Preferred:2",
        "The answer says\nPreferred: 1\nbut it is wrong.\nPreferred: 2",
        "Why\r\nPreferred: 2\r\n",
    ],
)
def test_a_decision_on_the_last_line_counts(answer: str) -> None:
    assert parse_preference(answer) == 2


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "2",
        "Answer 2 is better.",
        "Preferred: 3",
        "Preferred: 12",
        "Preferred: 1 or 2",
        "Preferred: 1/2",
        "Preferred: both",
        "Not Preferred: 1",
        "Preferred: 1\nOr is it?",
        "Preferred: -1",
        "Preferred: ²",
        "Preferred: 1, because it is shorter",
    ],
)
def test_anything_else_is_no_decision(answer: str) -> None:
    with pytest.raises(ValueError, match="expected the answer to end in the line"):
        parse_preference(answer)


# ---- judges ------------------------------------------------------------------------------------------------------------


def test_an_endpoint_is_asked_greedily_for_512_tokens_at_most(server: Server, connect: Callable[..., Endpoint]) -> None:
    with Cache(":memory:") as cache:
        assert EndpointJudge(connect(), "judge-1", cache).prefer([QUESTION]) == [1]
    sent = server.seen[0].body
    assert {name: sent[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "judge-1",
        "temperature": 0,
        "max_tokens": 512,
    }
    assert sent["messages"] == [{"role": "user", "content": render_prompt(QUESTION)}]


def test_a_question_is_asked_once_and_again_for_other_models_and_criteria(
    server: Server, connect: Callable[..., Endpoint]
) -> None:
    endpoint = connect()
    with Cache(":memory:") as cache:
        for model, criteria in (("a", "x"), ("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")):
            judge = EndpointJudge(endpoint, model, cache, criteria)
            assert judge.prefer([QUESTION, QUESTION]) == [1, 1]
    assert len(server.seen) == endpoint.requests == 3
    assert judge.cached == 2


def test_nonsense_is_not_cached(server: Server, connect: Callable[..., Endpoint]) -> None:
    server.judge = lambda seen: says("hm" if seen.number == 1 else "Preferred: 2")
    with Cache(":memory:") as cache:
        judge = EndpointJudge(connect(), "a", cache)
        assert [judge.prefer([QUESTION]), judge.prefer([QUESTION])] == [[2], [2]]
    assert len(server.seen) == 2


def test_a_stored_answer_that_cannot_be_read_is_asked_for_again(server: Server, connect: Callable[..., Endpoint]) -> None:
    class Spoilt(Cache):
        def get(self, key: str) -> str:
            return "hm"

    with Spoilt(":memory:") as cache:
        judge = EndpointJudge(connect(), "a", cache)
        assert judge.prefer([QUESTION]) == [1]
    assert judge.cached == 0


def by_length(pairs: list[tuple[Text, Text]]) -> list[float]:
    return [float(len(answer)) for _, answer in pairs]


def test_a_reward_model_prefers_the_higher_score() -> None:
    judge: Judge = RewardModelJudge(by_length, "rm")
    assert judge.prefer([Question("x", "long", "no"), Question("x", "no", "long")]) == [1, 2]


def test_a_reward_model_takes_the_first_of_equal_scores_in_both_orders() -> None:
    assert RewardModelJudge(by_length, "rm").prefer([Question("x", "aa", "bb"), Question("x", "bb", "aa")]) == [1, 1]


def test_a_reward_model_scores_each_answer_once() -> None:
    scored: list[tuple[Text, Text]] = []

    def score(pairs: list[tuple[Text, Text]]) -> list[float]:
        scored.extend(pairs)
        return by_length(pairs)

    RewardModelJudge(score, "rm").prefer([Question("x", "a", "bb"), Question("x", "bb", "a"), Question("y", "a", "c")])
    assert scored == [("x", "a"), ("x", "bb"), ("y", "a"), ("y", "c")]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_model_without_finite_scores_is_refused(value: float) -> None:
    with pytest.raises(NonFiniteError, match="rm: expected finite scores"):
        RewardModelJudge(lambda pairs: [value] * len(pairs), "rm").prefer([QUESTION])
