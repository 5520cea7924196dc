"""`warmkit sxs`: policies side by side, judged by rewards or by an endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Call, json_lines
from tests.unit.labeling.server import KEY, Reply, Seen, Server, fails, says, serving
from tests.unit.training import tiny
from warmkit.evaluation.pool import read_pool

E, LENGTH = "tests.unit.training.toy:count_e", "tests.unit.training.toy:length"


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("policies")
    return [
        tiny.make(folder / "first", "llama", 1),
        tiny.make(folder / "second", "llama", 2),
        tiny.make(folder / "other", "gpt2"),
    ]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "prompts.jsonl", [{"prompt": text} for text in tiny.sentences(6)])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as running:
        running.judge = prefers_long
        yield running


def prefers_long(seen: Seen) -> Reply:
    first, second = (len(each) for each in seen.answers)
    return says("Verdict: tie" if first == second else f"Verdict: {1 if first > second else 2} is slightly better")


def answers(path: str, *texts: str) -> Path:
    """Write a policy's answers as a file."""
    return tiny.write(Path(path), [{"prompt": f"question {n}", "completions": [text]} for n, text in enumerate(texts)])


def asking(server: Server) -> tuple[str, ...]:
    return ("--endpoint", server.url, "--model", "judge-1", "--backoff", "0.001", "--retries", "1")


# ---- rewards -------------------------------------------------------------------------------------------------------------


def test_two_policies_make_one_row(call: Call, policies: list[Path], prompts: Path) -> None:
    how = ("--prompts", prompts, "--reward", LENGTH, "--samples", 3, "--max-new-tokens", 6)
    done = call("sxs", *policies[:2], *how, "-o", "new/sxs.json", "--completions", "rows.jsonl", "--json")
    document = json.loads(done.stdout)
    assert document == json.loads(Path("new/sxs.json").read_text())
    (match,) = document["matches"]
    rows = json_lines(Path("rows.jsonl").read_text())
    assert len(rows) == 18 == match["wins"] + match["ties"] + match["losses"]
    lengths = [(len(row["answers"]["first"]), len(row["answers"]["second"])) for row in rows]
    assert [(row["rewards"]["first"], row["rewards"]["second"]) for row in rows] == lengths
    assert match["wins"] == sum(a > b for a, b in lengths)
    assert match["win_rate"]["value"] == pytest.approx(sum((a > b) + 0.5 * (a == b) for a, b in lengths) / 18)
    assert match["score"]["value"] == pytest.approx(sum(row["verdicts"][0]["score"] for row in rows) / 18)
    assert match["consistency"] is None
    back = json.loads(call("sxs", policies[1], policies[0], *how, "--json").stdout)["matches"][0]
    assert (back["wins"], back["ties"], back["losses"]) == (match["losses"], match["ties"], match["wins"])
    assert back["score"]["value"] == pytest.approx(-match["score"]["value"])
    wide = json.loads(call("sxs", *policies[:2], *how, "--tie-margin", 1000, "--json").stdout)["matches"][0]
    assert (wide["wins"], wide["ties"], wide["losses"]) == (0, 18, 0)


def test_policies_of_other_architectures_make_a_matrix_and_a_picture(call: Call, policies: list[Path], prompts: Path) -> None:
    how = ("--prompts", prompts, "--reward", LENGTH, "--samples", 2, "--max-new-tokens", 6, "--plot", "sxs.png")
    document = json.loads(call("sxs", *policies, *how, "--json").stdout)
    assert [(each["a"], each["b"]) for each in document["matches"]] == [
        ("first", "second"),
        ("first", "other"),
        ("second", "other"),
    ]
    rates = document["win_rates"]
    assert rates["first"]["other"] + rates["other"]["first"] == pytest.approx(1)
    assert Path("sxs.png").read_bytes().startswith(b"\x89PNG")
    shown = call("sxs", *policies, *how, "--examples", 2).stdout
    assert "Win rate of the row against the column" in " ".join(shown.split())
    assert [text in shown for text in tiny.sentences(6)] == [True, True, False, False, False, False]


def test_the_same_answers_tie_everywhere(call: Call) -> None:
    a, b = (answers(f"{name}.jsonl", "e", "eee", "") for name in "ab")
    document = json.loads(call("sxs", a, b, "--reward", E, "--json").stdout)
    (match,) = document["matches"]
    assert (match["wins"], match["ties"], match["losses"]) == (0, 3, 0)
    assert match["win_rate"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert match["score"]["value"] == 0


def test_steps_and_weights_place_answers_on_the_scale(call: Call) -> None:
    a, b = answers("a.jsonl", "eeeee"), answers("b.jsonl", "e")  # a difference of 4: 0.98
    for more, score in (
        ((), 1.5),
        (("--steps", "0.6,0.8,0.99"), 1),
        (("--reward", f"-0.9*{E}"), 0),
        (("--reward", f"-2*{E}"), -1.5),
    ):
        found = json.loads(call("sxs", a, b, "--reward", f"gold={E}", *more, "--json").stdout)
        assert found["matches"][0]["score"]["value"] == score


def test_a_policy_meets_a_file_of_answers(call: Call, policies: list[Path]) -> None:
    file = answers("mine.jsonl", "a cat", "a dog")
    done = call("sxs", policies[0], file, "--reward", LENGTH, "--max-new-tokens", 4, "--completions", "rows.jsonl", "--json")
    assert json.loads(done.stdout)["policies"] == {"first": str(policies[0]), "mine.jsonl": str(file)}
    rows = json_lines(Path("rows.jsonl").read_text())
    assert [row["answers"]["mine.jsonl"] for row in rows] == [each[0] for each in read_pool(file).texts]
    assert [row["prompt"] for row in rows] == ["question 0", "question 1"]


# ---- an endpoint ---------------------------------------------------------------------------------------------------------


def test_an_endpoint_is_asked_in_both_orders_and_once(call: Call, server: Server) -> None:
    a, b = answers("a.jsonl", "long answer", "mid", "same"), answers("b.jsonl", "short", "middle", "same")
    done = call("sxs", a, b, *asking(server), "-o", "new/sxs.json", "--json")
    document = json.loads(done.stdout)
    (match,) = document["matches"]
    assert (match["wins"], match["ties"], match["losses"]) == (1, 1, 1)
    assert (match["win_rate"]["value"], match["score"]["value"], match["consistency"]) == (0.5, 0, 1)
    assert document["judge"] == {"model": "judge-1", "cached": 0, "requests": 4}
    assert sorted(seen.answers for seen in server.seen) == sorted(
        [("long answer", "short"), ("short", "long answer"), ("mid", "middle"), ("middle", "mid")]
    )
    again = json.loads(call("sxs", a, b, *asking(server), "-o", "new/sxs.json", "--force", "--json").stdout)
    assert again["judge"] == {"model": "judge-1", "cached": 4, "requests": 0}
    assert again["matches"] == document["matches"]
    assert Path("new/sxs.answers.sqlite").exists()
    assert not any(KEY.encode() in path.read_bytes() for path in Path().rglob("*") if path.is_file())


def test_a_judge_of_positions_gives_ties_that_no_order_confirms(call: Call, server: Server) -> None:
    server.judge = lambda _: says("Verdict: 1 is much better")
    a, b = answers("a.jsonl", "x", "y"), answers("b.jsonl", "u", "v")
    shown = call("sxs", a, b, *asking(server), "--cache", "c.sqlite").stdout
    assert re.search(r"a\.jsonl +b\.jsonl +0\.500 \(0\.500-0\.500\) +\+0\.00 .* 0 +2 +0 +0\.000", shown)
    assert "orders agree" in shown


def test_comparisons_that_fail_are_named_after_the_result(call: Call, server: Server) -> None:
    server.judge = lambda seen: fails(400, "too long") if "question 1" in seen.text else prefers_long(seen)
    a, b = answers("a.jsonl", "xx", "y"), answers("b.jsonl", "u", "vv")
    done = call("sxs", a, b, *asking(server), "--cache", "c.sqlite", "--json", "--completions", "rows.jsonl", code=1)
    document = json.loads(done.stdout)
    assert document["failures"] == [{"where": "a.jsonl:2", "reason": "HTTP 400: too long"}]
    assert document["matches"][0]["win_rate"]["value"] == 1
    assert json_lines(Path("rows.jsonl").read_text())[1]["verdicts"] == [
        {"a": "a.jsonl", "b": "b.jsonl", "outcome": None, "score": None}
    ]
    assert "1 comparisons have no verdict" in done.stderr
    done = call("sxs", a, b, *asking(server), "--cache", "c.sqlite", "--examples", 2, code=1)
    assert "1.000 (0.207-1.000)" in done.stdout, "one of one is no certainty"
    assert "a.jsonl:2: HTTP 400: too long" in done.stderr
    server.judge = lambda _: fails(400, "no")
    assert "no verdict at all" in call("sxs", a, b, *asking(server), "--cache", "new.sqlite", code=1).stderr


# ---- mistakes ------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_refused(call: Call, policies: list[Path]) -> None:
    a, b = answers("a.jsonl", "x", "y"), answers("b.jsonl", "u", "v")
    judge, endpoint = ("--reward", E), ("--endpoint", "http://127.0.0.1:1/v1", "--model", "m")
    for arguments, said in (
        ((a, *judge), "expected two policies or more"),
        ((a, a, *judge), "twice"),
        ((a, b), "expected --reward"),
        ((*policies[:2], *judge), "expected --prompts"),
        ((a, b, *judge, *endpoint, "--cache", "c"), "--reward and --endpoint both judge"),
        ((a, b, *endpoint), "expected --cache FILE, or -o OUT"),
        ((a, b, "--endpoint", "http://x/v1"), "--endpoint and --model go together"),
        ((a, b, *endpoint, "--cache", "c", "--steps", "0.6,0.7,0.8"), "--tie-margin and --steps are for rewards"),
        ((a, b, *judge, "--cache", "c"), "--criteria and --cache are for an endpoint"),
        ((a, b, *judge, "--steps", "0.6,0.8"), "three rising probabilities"),
        ((a, b, *judge, "--steps", "x"), "--steps: expected numbers"),
        ((a, b, *judge, "--plot", "x.docx"), "expected a picture"),
    ):
        assert said in call("sxs", *arguments, code=2).stderr
    nowhere = ("nowhere/a", "nowhere/b", "--prompts", "a.jsonl")  # judges are tried before policies are loaded
    assert "cannot be imported" in call("sxs", *nowhere, "--reward", "no_module:f", code=2).stderr
    assert "http" in call("sxs", *nowhere, "--endpoint", "ftp://x", "--model", "m", "--cache", "c", code=2).stderr
    assert "nowhere/a" in call("sxs", *nowhere, *judge, code=1).stderr
    Path("there.json").write_text("{}")
    assert "already exists" in call("sxs", a, b, *judge, "-o", "there.json", code=1).stderr
    other = tiny.write(Path("other.jsonl"), [{"prompt": "else", "completions": ["x"]}])
    assert "expected the prompts that a.jsonl answered" in call("sxs", a, other, *judge, code=1).stderr
