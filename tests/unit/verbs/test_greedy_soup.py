"""The greedy recipe, with a real score command."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch

import warmkit
from tests import forks
from tests.conftest import Run, save
from warmkit.errors import OutputError, ScoreError, UsageError

TARGET = 1.0
# Scores the distance of the one weight from the target, and counts how often it ran.
SCORE = f"""
import struct, sys; from pathlib import Path
folder = Path(sys.argv[1])
with open(sys.argv[2], "a") as log: log.write("x")
print("loading", folder)
print(abs(struct.unpack("<f", (folder / "model.safetensors").read_bytes()[-4:])[0] - {TARGET}))
"""


@pytest.fixture
def kitchen(tmp_path: Path) -> tuple[str, Path, dict[str, Path]]:
    (tmp_path / "score.py").write_text(SCORE)
    values = {"best": 1.1, "opposite": 0.8, "far": 3.0}
    models = {name: save(tmp_path / name, {"w": torch.tensor([value])}, None) for name, value in values.items()}
    log = tmp_path / "log"
    return f"{sys.executable} {tmp_path / 'score.py'} {{}} {log}", log, models


def test_models_are_sorted_and_stay_if_the_soup_scores_no_worse(
    kitchen: tuple[str, Path, dict[str, Path]], tmp_path: Path
) -> None:
    command, log, models = kitchen
    soup = warmkit.greedy_soup(
        [models["far"], models["opposite"], models["best"]], tmp_path / "out", score=command, minimize=True
    )
    assert soup.members == [str(models["best"]), str(models["opposite"])]
    assert [(Path(trial.name).name, trial.stays) for trial in soup.trials] == [
        ("best", True),
        ("opposite", True),
        ("far", False),
    ]
    assert soup.score == pytest.approx(0.05, abs=1e-6)
    assert warmkit.open_checkpoint(tmp_path / "out")["w"].load().item() == pytest.approx(0.95)
    assert len(log.read_text()) == 5  # three models and two soups
    manifest = json.loads((tmp_path / "out" / "warmkit.json").read_text())
    assert manifest["method"] == "greedy-soup"
    assert manifest["greedy"]["scores"][str(models["far"])] == pytest.approx(2)
    warmkit.verify(tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def test_a_tie_stays(kitchen: tuple[str, Path, dict[str, Path]], tmp_path: Path) -> None:
    models = [kitchen[2][name] for name in ("best", "far")]
    assert warmkit.greedy_soup(models, tmp_path / "out", score="echo {} >/dev/null; echo 1").members == [str(m) for m in models]


def test_larger_is_better_by_default(kitchen: tuple[str, Path, dict[str, Path]], tmp_path: Path) -> None:
    command, _, models = kitchen
    assert warmkit.greedy_soup(list(models.values()), tmp_path / "out", score=command).members == [str(models["far"])]


def test_scores_survive_an_interruption(kitchen: tuple[str, Path, dict[str, Path]], tmp_path: Path) -> None:
    command, log, models = kitchen
    # fails at the fourth model it is shown
    breaking = f"test $(wc -c < {log}) -lt 3 && {command}"
    log.write_text("")
    paths = list(models.values())
    with pytest.raises(ScoreError):
        warmkit.greedy_soup(paths, tmp_path / "out", score=breaking, minimize=True)
    assert not (tmp_path / "out").exists()
    assert log.read_text() == "xxx"
    log.write_text("")
    with pytest.raises(ScoreError):  # the singles are known; two soups can be scored before the command breaks again
        warmkit.greedy_soup(paths, tmp_path / "out", score=breaking + " && false", minimize=True)
    log.write_text("")
    assert warmkit.greedy_soup(paths, tmp_path / "out", score=breaking, minimize=True).members
    assert log.read_text() == "xx"


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["new", "force"])
@pytest.mark.parametrize("left", ["whole", "half"])
def test_a_candidate_that_a_kill_left_is_no_obstacle(
    left: str, force: list[str], kitchen: tuple[str, Path, dict[str, Path]], tmp_path: Path
) -> None:
    command, log, models = kitchen
    slow = tmp_path / "slow"  # the fourth call, the first of a soup, waits
    waiting = f"{command}; [ $(wc -c < {log}) != 4 ] || [ -e {slow} ] || sleep 60"
    line = [sys.executable, "-m", "warmkit", "soup", "--greedy", *map(str, models.values()), "-o", "out", "--score", waiting]
    process = forks.Popen([*line, "--minimize", *force], cwd=tmp_path)
    while not log.exists() or len(log.read_text()) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    candidate = tmp_path / ".out.warmkit-greedy" / "candidate"
    assert (candidate / "model.safetensors").exists()
    if left == "half":  # as a kill while it is removed leaves it
        (candidate / "model.safetensors").unlink()
        (candidate / "warmkit.json").rename(candidate / "config.json")
    slow.touch()
    again = forks.run([*line, "--minimize", *force], cwd=tmp_path, text=True)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert not list(tmp_path.glob(".out*"))


def test_what_is_made_at_the_destination_while_models_are_scored_stays(
    kitchen: tuple[str, Path, dict[str, Path]], tmp_path: Path
) -> None:
    command, log, models = kitchen
    paths, out = list(models.values()), tmp_path / "out"
    making = f"cp -r {models['far']} {out} 2>/dev/null; {command}"
    with pytest.raises(OutputError, match="out: was made by something else while this ran, and stays as it is: move"):
        warmkit.greedy_soup(paths, out, score=making, minimize=True, force=True)
    assert (out / "model.safetensors").read_bytes() == (models["far"] / "model.safetensors").read_bytes()
    log.write_text("")
    shutil.rmtree(out / "far", ignore_errors=True)  # where the second copy went
    assert warmkit.greedy_soup(paths, out, score=making, minimize=True, force=True).score < 1
    assert log.read_text() == ""  # scores are kept
    warmkit.verify(out)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("false {}", "exited with 1"),
        ("echo nice; true {}", "expected a number on the last line.*'nice'"),
        ("true {}", "found nothing"),
        ("echo nan; true {}", "must be finite"),
        ("echo 'no such thing' >&2; exit 3; {}", "exited with 3 .* no such thing"),
    ],
)
def test_a_score_command_that_fails_is_quoted(
    command: str, expected: str, kitchen: tuple[str, Path, dict[str, Path]], tmp_path: Path
) -> None:
    with pytest.raises(ScoreError, match=expected):
        warmkit.greedy_soup(list(kitchen[2].values()), tmp_path / "out", score=command)
    assert not (tmp_path / "out").exists()


def test_usage_of_the_command(kitchen: tuple[str, Path, dict[str, Path]], run: Run, tmp_path: Path) -> None:
    command, _, models = kitchen
    paths = [str(path) for path in models.values()]
    assert run("soup", "--greedy", *paths, "-o", "out").returncode == 2
    assert run("soup", "--score", "echo {}", *paths, "-o", "out").returncode == 2
    done = run("soup", "--greedy", "--score", command, "--minimize", *paths, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "stays" in done.stdout
    assert "left out" in done.stdout
    said = [line for line in done.stderr.splitlines() if line.startswith("scored ")]
    assert len(said) == 2 * len(paths) - 1
    assert said[0].startswith("scored 1 of 5: ")
    assert any(line.endswith("best: 0.1") for line in said[:3])
    assert {line.rpartition(", ")[2] for line in said[3:]} <= {"kept", "left out"}
    with pytest.raises(UsageError, match="listed twice"):
        warmkit.greedy_soup([paths[0], paths[0]], tmp_path / "other", score="echo {}")
    with pytest.raises(UsageError, match=r"needs \{\}"):
        warmkit.greedy_soup(paths, tmp_path / "other", score="echo 1")
