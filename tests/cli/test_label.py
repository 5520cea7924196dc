"""`warmkit label` against a server: what it writes, counts, survives and keeps to itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests import forks
from tests.conftest import Run
from tests.unit.labeling.server import KEY, Reply, Seen, Server, fails, prefers_good, prefers_the_first, says, serving
from warmkit.cli.command import Command
from warmkit.cli.label import label


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five rows, of which row 3 is the pair of a data set."""
    rows = [{"prompt": f"question {n}", "a": f"good {n}", "b": f"bad {n}"} for n in range(5)]
    rows[2] = {"prompt": "question 2", "chosen": "bad 2", "rejected": "good 2"}
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asking(server: Server, *more: str) -> list[str]:
    judge = ["--endpoint", server.url, "--model", "judge-1", "--backoff", "0.001", "--retries", "1"]
    return ["label", "data.jsonl", *judge, "-o", "out.jsonl", *more]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def counts(done: subprocess.CompletedProcess[str]) -> tuple[int, ...]:
    """Return rows, labelled, inconsistent, failed, answered from the cache, requests."""
    document = json.loads(done.stdout)
    return tuple(document[name] for name in ("rows", "labelled", "inconsistent", "failed", "cached", "requests"))


def nothing_holds_the_key(folder: Path, done: subprocess.CompletedProcess[str]) -> bool:
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return KEY.encode() not in files and KEY not in done.stdout + done.stderr


def test_rows_are_labelled_and_counted(server: Server, data: Path, run: Run, tmp_path: Path) -> None:
    done = run(*asking(server))
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["chosen"] for row in lines(tmp_path / "out.jsonl")] == [f"good {n}" for n in range(5)]
    said = " ".join(done.stdout.split())
    assert "rows 5 labelled 5 inconsistent 0 failed 0 answered from the cache 0 requests 10" in said
    assert not (tmp_path / "out.inconsistent.jsonl").exists()
    assert nothing_holds_the_key(tmp_path, done)


def test_a_rerun_is_free(server: Server, data: Path, run: Run) -> None:
    assert counts(run(*asking(server, "--json"))) == (5, 5, 0, 0, 0, 10)
    assert counts(run(*asking(server, "--json", "--force"))) == (5, 5, 0, 0, 10, 0)
    assert len(server.seen) == 10


def test_a_position_bias_fills_the_inconsistent_file(server: Server, data: Path, run: Run, tmp_path: Path) -> None:
    server.judge = prefers_the_first
    assert counts(run(*asking(server, "--json"))) == (5, 0, 5, 0, 0, 10)
    assert lines(tmp_path / "out.jsonl") == []
    assert [row["prompt"] for row in lines(tmp_path / "out.inconsistent.jsonl")] == [f"question {n}" for n in range(5)]
    assert counts(run(*asking(server, "--json", "--force", "--inconsistent", "keep-first"))) == (5, 5, 5, 0, 10, 0)
    assert len(lines(tmp_path / "out.jsonl")) == 5


def test_failed_rows_are_named_the_rest_is_written_and_a_rerun_mends_it(
    server: Server, data: Path, run: Run, tmp_path: Path
) -> None:
    replies = {"question 1": says(f"No idea. {KEY}"), "question 3": fails(500, f"broken {KEY}")}
    server.judge = lambda seen: next((reply for name, reply in replies.items() if name in seen.text), prefers_good(seen))
    done = run(*asking(server))
    assert done.returncode == 1
    assert "2 of 5 rows have no label; with --force the same command asks for them again" in done.stderr
    assert "data.jsonl:2: expected the answer to end in the line 'Preferred: 1' or 'Preferred: 2'" in done.stderr
    assert "data.jsonl:4: HTTP 500: broken [key] (2 attempts)" in done.stderr
    assert "Traceback" not in done.stderr
    assert [row["prompt"] for row in lines(tmp_path / "out.jsonl")] == ["question 0", "question 2", "question 4"]
    assert nothing_holds_the_key(tmp_path, done)
    server.judge, asked = prefers_good, len(server.seen)
    assert counts(run(*asking(server, "--json", "--force"))) == (5, 5, 0, 0, 6, 4)
    assert len(server.seen) == asked + 4


def test_failures_keep_json_one_document(server: Server, data: Path, run: Run) -> None:
    server.judge = lambda seen: fails(400, "too long") if "question 1" in seen.text else prefers_good(seen)
    done = run(*asking(server, "--json"))
    assert done.returncode == 1
    assert json.loads(done.stdout)["failures"] == [{"where": "data.jsonl:2", "reason": "HTTP 400: too long"}]
    assert "data.jsonl:2: HTTP 400: too long" in done.stderr


def test_own_criteria_key_variable_and_cache(server: Server, data: Path, run: Run, tmp_path: Path) -> None:
    more = ("--criteria", "Which one rhymes?", "--key-variable", "MY_KEY", "--cache", "my.cache")
    assert run(*asking(server, *more), env={"MY_KEY": "mine"}).returncode == 0
    assert all("Which one rhymes?" in seen.text for seen in server.seen)
    assert {seen.headers["authorization"] for seen in server.seen} == {"Bearer mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "my.cache", "out.jsonl"]


@pytest.mark.parametrize(("name", "code"), [("SIGKILL", -9), ("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stopped_run_is_continued_where_it_stopped(
    server: Server, data: Path, run: Run, tmp_path: Path, name: str, code: int
) -> None:
    release = threading.Event()

    def hang_at_the_seventh(seen: Seen) -> Reply:
        if seen.number == 7:
            release.wait(60)
        return prefers_good(seen)

    server.judge = hang_at_the_seventh
    stopped = start(tmp_path, *asking(server, "--concurrency", "1"))
    server.wait_for(7)
    stopped.send_signal(getattr(signal, name))
    _, said = stopped.communicate(timeout=60)
    release.set()
    assert stopped.returncode == code
    assert "Traceback" not in said
    assert ("the same command goes on where this one stopped" in said) == (code > 0)
    assert not (tmp_path / "out.jsonl").exists()
    server.judge = prefers_good
    assert counts(run(*asking(server, "--json"))) == (5, 5, 0, 0, 6, 4)
    assert len(server.seen) == 7 + 4


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs would ignore it
    try:
        command = [sys.executable, "-m", "warmkit", *arguments]
        return forks.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}
        )
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_reward_model_judges_without_an_endpoint(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str) -> SimpleNamespace:
        return SimpleNamespace(score=lambda pairs: [float(answer.startswith("good")) for _, answer in pairs])

    monkeypatch.setitem(sys.modules, "warmkit.modeling.reward_model", SimpleNamespace(load_scorer=load))
    app = typer.Typer()
    app.command(cls=Command)(label)
    done = CliRunner().invoke(app, [str(data), "--judge-model", "my-rm", "-o", str(tmp_path / "out.jsonl"), "--json"])
    document = json.loads(done.stdout)
    assert (document["judge"], document["labelled"], document["requests"]) == ("my-rm", 5, 0)
    assert [row["chosen"] for row in lines(tmp_path / "out.jsonl")] == [f"good {n}" for n in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out.jsonl"]


Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["-o", "out"], 2, "expected one judge"),
        (["-o", "out", "--endpoint", "http://host/v1", "--model", "m", "--judge-model", "rm"], 2, "expected one judge"),
        (["-o", "out", "--endpoint", "http://host/v1"], 2, "--endpoint and --model go together"),
        (["-o", "out", "--judge-model", "rm", "--model", "m"], 2, "--endpoint and --model go together"),
        (["-o", "out", "--judge-model", "rm", "--criteria", "x"], 2, "--criteria and --cache are for an endpoint"),
        (["-o", "out", "--endpoint", "host", "--model", "m"], 2, "expected an endpoint like http://host/v1, found 'host'"),
        (["-o", "missing/out", "--endpoint", "http://host/v1", "--model", "m"], 1, "there is no such directory"),
        (["-o", "data.jsonl", "--endpoint", "http://host/v1", "--model", "m"], 1, "already exists; choose another -o"),
        (["-o", "data.jsonl", "--endpoint", "http://host/v1", "--model", "m", "--force"], 2, "is the file to label"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_asked(
    data: Path, refused: Refused, more: list[str], code: int, said: str
) -> None:
    assert said in refused("label", "data.jsonl", *more, code=code)


def test_bad_rows_are_refused_before_anything_is_asked(server: Server, data: Path, refused: Refused) -> None:
    with data.open("a") as file:
        file.write('{"prompt": "p", "a": "x"}\nno JSON\n')
    said = refused(*asking(server))
    assert "2 of 7 rows are bad" in said
    assert "data.jsonl:6: expected the key 'b'" in said
    assert server.seen == []
