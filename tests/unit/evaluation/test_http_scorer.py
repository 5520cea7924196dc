"""A scorer behind HTTP: what goes over the wire, what is tried again, what is refused, and that nothing shows the key."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import forks
from tests.unit.labeling.server import KEY, Reply, Seen, Server, fails, serving
from tests.unit.training import toy
from warmkit.data.prompts import Prompt
from warmkit.errors import ScoreError, UsageError
from warmkit.evaluation import http_scorer
from warmkit.evaluation.reward_term import RewardTerm, parse_reward_term
from warmkit.evaluation.rewards import open_terms
from warmkit.recipes.recipe import recipe_text
from warmkit.training.policy import train_policy

PROMPTS = [Prompt("the cat", "a:1"), Prompt([{"role": "user", "content": "grün"}], "a:2"), Prompt("old", "a:3")]
COMPLETIONS = [" sleeps", " river e\nee", ""]
Answer = Callable[[Seen], Reply]


def answers(document: object) -> Reply:
    return Reply(json.dumps(document))


def counts_e(seen: Seen) -> Reply:
    return answers({"rewards": [text.count("e") for text in seen.body["completions"]]})


def first(*replies: Reply) -> Answer:
    """Give these replies in turn, then a good one."""
    return lambda seen: replies[seen.number - 1] if seen.number <= len(replies) else counts_e(seen)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("WARMKIT_ENDPOINT_KEY", raising=False)
    monkeypatch.setattr(http_scorer, "BACKOFF", 0.001)
    with serving() as running:
        running.judge = counts_e
        yield running


def term(server: Server) -> RewardTerm:
    return RewardTerm(endpoint=f"{server.url}/score")


def scores(server: Server) -> list[float]:
    return open_terms([term(server)])[0](PROMPTS, COMPLETIONS).tolist()


def refusal(server: Server) -> str:
    with pytest.raises(ScoreError) as caught:
        scores(server)
    return str(caught.value)


# ---- the wire ---------------------------------------------------------------------------------------------------------


def test_prompts_completions_and_both_together_are_sent_to_the_address_as_it_stands(server: Server) -> None:
    assert scores(server) == [2.0, 4.0, 0.0]
    (seen,) = server.seen
    assert seen.path == "/v1/score"
    assert seen.body == {
        "prompts": ["the cat", [{"role": "user", "content": "grün"}], "old"],
        "completions": COMPLETIONS,
        "query": ["the cat sleeps", "grün river e\nee", "old"],
    }
    assert "authorization" not in seen.headers


@pytest.mark.parametrize(
    "document",
    [
        {"rewards": [1, 2.5, -3]},
        {"scores": [1, 2.5, -3]},
        [1, 2.5, -3],
        {"rewards": [1, 2.5, -3], "scores": [7, 7, 7], "extra_logs": {"x": [0, 0, 0]}},
    ],
    ids=str,
)
def test_every_form_of_an_answer_is_read(server: Server, document: object) -> None:
    server.judge = lambda _: answers(document)
    assert scores(server) == [1.0, 2.5, -3.0]


def test_many_completions_go_in_several_requests_and_come_back_in_order(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_scorer, "BATCH", 2)
    assert scores(server) == [2.0, 4.0, 0.0]
    assert [seen.body["completions"] for seen in server.seen] == [COMPLETIONS[:2], COMPLETIONS[2:]]


def test_a_surplus_does_not_make_up_for_a_lack(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_scorer, "BATCH", 2)
    server.judge = lambda seen: answers([[1], [2, 3]][seen.number - 1])
    assert "expected 2 numbers, one a completion, found 1" in refusal(server)


# ---- what may pass, and what does not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [fails(500), fails(429, Retry_After="0.01"), fails(503), Reply("<html>gateway</html>"), Reply("[1, 2", length=100)],
    ids=["500", "429", "503", "html", "cut off"],
)
def test_what_fails_in_passing_is_asked_again(server: Server, reply: Reply) -> None:
    server.judge = first(reply, reply)
    assert scores(server) == [2.0, 4.0, 0.0]
    assert len(server.seen) == 3


def test_retry_after_is_honoured(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("warmkit.common.http_client.time.sleep", pauses.append)
    server.judge = first(fails(429, Retry_After="7"))
    assert scores(server) == [2.0, 4.0, 0.0]
    assert 7 <= pauses[0] < 7.1


FOREVER = {
    "a server error": (fails(500, "no memory"), 6, "HTTP 500: no memory (6 attempts)"),
    "garbage": (Reply("<html>gateway</html>"), 6, "expected JSON, found <html>gateway</html> (6 attempts)"),
    "a bad request": (fails(422, "field required"), 1, "HTTP 422: field required"),
    "a wrong address": (fails(404, "not found"), 1, "HTTP 404: not found"),
    "too few": (answers([1, 2]), 1, "expected 3 numbers, one a completion, found 2"),
    "too many": (answers({"rewards": [1] * 4}), 1, "expected 3 numbers, one a completion, found 4"),
    "a text": (answers({"rewards": [1, "good", 2]}), 1, 'expected a number for each completion, found "good"'),
    "null": (answers([1, None, 2]), 1, "expected a number for each completion, found null"),
    "a truth": (answers([1, True, 2]), 1, "expected a number for each completion, found true"),
    "lists of one": (answers([[1], [2], [3]]), 1, "expected a number for each completion, found [1.0]"),
    "other keys": (answers({"reward": 3}), 1, 'expected {"rewards": [...]}, {"scores": [...]} or a list, found {"reward": 3}'),
    "an error with 200": (answers({"error": {"message": "no model"}}), 1, "or a list, found no model"),
}


@pytest.mark.parametrize("failure", FOREVER)
def test_a_failure_names_the_reward_and_what_was_found(server: Server, failure: str) -> None:
    reply, attempts, expected = FOREVER[failure]
    server.judge = lambda _: reply
    said = refusal(server)
    assert said.startswith(f"reward {server.url}/score: ")
    assert said.endswith(expected)
    assert len(server.seen) == attempts


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" * 400])
def test_a_number_that_is_not_finite_names_the_completion(server: Server, number: str) -> None:
    server.judge = lambda _: Reply(f'{{"rewards": [1, {number}, 2]}}')
    assert "for the completion ' river e\\nee' of a:2; expected a finite number" in refusal(server)


def test_a_server_that_does_not_answer_times_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_scorer, "TIMEOUT", 0.1)
    release = threading.Event()

    def hang(_: Seen) -> Reply:
        release.wait(30)
        return answers([])

    server.judge = hang
    said = refusal(server)
    release.set()
    assert said.endswith("no answer within 0.1 s (6 attempts)")


def test_a_server_that_is_not_there_is_named(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}"
    said = refusal(server)
    assert f"{server.url}/score cannot be reached" in said
    assert said.endswith("(6 attempts)")


# ---- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_struck_out_of_what_comes_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMKIT_ENDPOINT_KEY", KEY)
    assert scores(server) == [2.0, 4.0, 0.0]
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    for reply in (fails(401, f"bad key {KEY}"), answers({"reward": KEY}), answers([KEY] * 3)):
        server.judge = lambda _, reply=reply: reply
        assert KEY not in refusal(server)


def test_a_key_for_language_models_is_not_sent_to_a_scorer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    scores(server)
    assert "authorization" not in server.seen[0].headers


# ---- recipes and the short form ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("http://host:8000/score", None, 1.0),
        ("0.5*https://host/a=b*c", None, 0.5),
        ("gold=http://host", "gold", 1.0),
        ("my-rm=-2*HTTPS://host/score", "my-rm", -2.0),
    ],
)
def test_the_short_form_knows_an_address(text: str, name: str | None, weight: float) -> None:
    assert parse_reward_term(text) == RewardTerm(name, weight, endpoint=text[text.lower().index("http") :])


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/score", "http://", "http://host:port/score"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected an endpoint like http://host/score, found"):
        RewardTerm(endpoint=url)


@pytest.mark.parametrize("url", ["http://me:secret@host/score", "http://host/score?key=secret"])
def test_an_address_with_a_secret_in_it_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        RewardTerm(endpoint=url)
    assert "secret" not in str(caught.value)


# ---- training ---------------------------------------------------------------------------------------------------------


def test_a_policy_learns_from_a_server_as_from_a_function(server: Server, tmp_path: Path) -> None:
    served = toy.recipe(tmp_path, "served", rewards=[term(server)], steps=2, keep=[2])
    local = toy.recipe(tmp_path, "local", steps=2, keep=[2])
    first, second = train_policy(served), train_policy(local)
    assert (first.path / "model.safetensors").read_bytes() == (second.path / "model.safetensors").read_bytes()
    assert first.summary["last"]["reward_endpoint"] == second.summary["last"]["reward_count_e"]
    assert len(server.seen) == 3, "two steps and the evaluation"


def test_a_run_that_loses_its_server_says_so_and_writes_no_key(server: Server, tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, rewards=[term(server)], steps=4, save_every=1)
    server.judge = lambda seen: counts_e(seen) if seen.number <= 2 else fails(400, f"gone {KEY}")
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    command = [sys.executable, "-m", "warmkit", "train", "policy", "recipe.yaml", "--set", "output.path=run"]
    environment = {**os.environ, "WARMKIT_ENDPOINT_KEY": KEY, "NO_COLOR": "1"}
    done = forks.run(command, cwd=tmp_path, env=environment, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"error: reward {server.url}/score: HTTP 400: gone [key]"
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "state.pt").exists()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written
