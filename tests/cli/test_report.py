"""`warmkit report`: one file for any run, written again while it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import warmkit
from tests import forks
from tests.cli.conftest import Call, Rewards
from tests.conftest import make_family
from warmkit.report.html_page import is_report

pytest.importorskip("altair")
pytest.importorskip("vl_convert")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training run that is not done: its recipe and five steps."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("model: {path: base}\nsft: {lr: 0.001}\n")
    step(folder, *range(1, 6))
    return folder


def step(folder: Path, *numbers: int) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": number, "loss": 1 / number}) + "\n" for number in numbers)


def finish(folder: Path) -> None:
    (folder / "summary.json").write_text('{"steps": 5, "seconds": 3.0}')


def test_a_report_lies_in_its_run_and_is_replaced(call: Call, run: Path) -> None:
    finish(run)
    done = call("report", run)
    assert done.stdout.startswith(f"{run}/report.html (")
    first = (run / "report.html").read_text()
    assert is_report(run / "report.html")
    assert '"x":5,"y":0.2' in first
    assert f"<code>warmkit report {run}</code>" in first
    step(run, 6)
    call("report", run)
    assert '"x":6,"y":0.166667' in (run / "report.html").read_text()


def test_the_document_names_the_report_and_what_it_is_of(call: Call, run: Path, tmp_path: Path) -> None:
    family = make_family(tmp_path)
    warmkit.merge([family.a, family.b], tmp_path / "merged", method="slerp", init=family.init)
    done = call("report", run, "merged", "--json")
    document = json.loads(done.stdout)
    assert document["report"] == "report.html"
    assert document["bytes"] == Path("report.html").stat().st_size
    assert [(each["kind"], each["done"]) for each in document["runs"]] == [("merge", True), ("training run", False)]


def test_a_cut_of_the_metrics_is_said_on_the_console_too(call: Call, run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    done = call("report", run)
    assert "metrics.jsonl: line 6 is cut off; 5 steps are shown" in done.stderr
    assert "line 6 is cut off" in (run / "report.html").read_text()


def test_documents_of_other_verbs_become_reports(call: Call, rewards: Rewards) -> None:
    a, b = rewards.llamas[:2]
    call("lmc", a, b, "--data", f"val={rewards.pairs}", "--points", 3, "-o", "lmc.json")
    Path("rm.json").write_text(call("eval", "rm", a, b, "--data", f"val={rewards.pairs}", "--json").stdout)
    Path("compare.json").write_text(call("compare", a, b, "--init", rewards.probe, "--json").stdout)
    for name, shown in (("lmc", "Linear mode connectivity"), ("rm", "WA against ENS"), ("compare", "Cosine of task vectors")):
        call("report", f"{name}.json")
        assert shown in Path(f"{name}.html").read_text()


def test_a_file_that_is_no_report_is_kept(call: Call, run: Path) -> None:
    mine = Path("mine.html")
    mine.write_text("<html>mine</html>")
    done = call("report", run, "-o", mine, code=1)
    assert "already exists and is no report" in done.stderr
    assert mine.read_text() == "<html>mine</html>"
    call("report", run, "-o", mine, "--force")
    assert is_report(mine)
    assert "expected an HTML file: -o" in call("report", run, "-o", run, code=1).stderr


def test_what_is_no_run_is_one_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = call("report", "empty", code=1)
    assert done.stderr.startswith("error: empty: holds no run of warmkit; expected recipe.yaml and metrics.jsonl")
    assert not Path("empty/report.html").exists()
    assert "there is no such run" in call("report", "none", code=1).stderr


def test_without_the_libraries_one_line_says_what_to_install(call: Call, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert "pip install 'warmkit[report]'" in call("report", run, code=2).stderr


# ---- watching -------------------------------------------------------------------------------------------------------


def watched(run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "warmkit", "report", str(run), "--watch", "--every", "0.2"]
    return forks.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not happened() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    assert happened()


def test_a_watched_run_is_written_again_until_it_is_done(run: Path) -> None:
    report, process = run / "report.html", watched(run)
    wait_for(report.exists, process)
    assert "<body data-live=" in report.read_text()
    step(run, 6)
    wait_for(lambda: '"x":6,"y":0.166667' in report.read_text(), process)
    finish(run)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out.startswith(str(report))
    assert "<body data-live=" not in report.read_text()


def test_a_watch_that_is_interrupted_leaves_a_page_that_stays_as_it_is(run: Path) -> None:
    report, process = run / "report.html", watched(run)
    wait_for(report.exists, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "<body data-live=" not in report.read_text()
