"""Trackers: the same numbers as metrics.jsonl, once each, after a kill too, and nothing that is trained changes."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests import forks
from tests.unit.training import tiny, toy
from tests.unit.training.killed import kill_after
from warmkit.errors import RecipeError
from warmkit.pipelines.warm import run_recipes
from warmkit.recipes.recipe import read_recipe, recipe_text
from warmkit.training.policy import train_policy
from warmkit.training.policy_recipe import PolicyRecipe
from warmkit.training.recipe_sections import DataSection, RewardModelRecipe, SftRecipe, WarmRecipe
from warmkit.training.reward_modeling import train_reward_model
from warmkit.training.run_identity import run_identity
from warmkit.training.sft import train_sft

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

NO_TENSORBOARD = importlib.util.find_spec("tensorboard") is None
NO_WANDB = importlib.util.find_spec("wandb") is None
needs_tensorboard = pytest.mark.skipif(NO_TENSORBOARD, reason="tensorboard is not installed")
needs_wandb = pytest.mark.skipif(NO_WANDB, reason="wandb is not installed")

Numbers = dict[str, list[tuple[int, float]]]


def tracked(recipe: Any, *trackers: str) -> Any:
    return replace(recipe, output=replace(recipe.output, trackers=list(trackers)))


def home(recipe: Any) -> Path:
    return Path(recipe.output.path)


def logged(recipe: Any) -> Numbers:
    """Return what metrics.jsonl says: step and value of every number, as event files hold them."""
    result: Numbers = {}
    for line in map(json.loads, (home(recipe) / "metrics.jsonl").read_text().splitlines()):
        for name, value in line.items():
            if name not in ("step", "warnings"):
                result.setdefault(name, []).append((line["step"], float(np.float32(value))))
    return result


def events(recipe: Any) -> Numbers:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(home(recipe) / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    names: list[str] = read.Tags()["scalars"]  # pyright: ignore[reportAssignmentType]
    return {name: [(each.step, each.value) for each in read.Scalars(name)] for name in names}


def sft(folder: Path) -> SftRecipe:
    source = tiny.recipe(folder)
    return SftRecipe(source.model, DataSection(source.data.train), source.output, tiny.as_sft(source.rm))


RUNS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Any]]] = {
    "rm": (lambda folder: tiny.recipe(folder, evaluate_every=3), train_reward_model),
    "sft": (sft, train_sft),
    "policy": (lambda folder: toy.recipe(folder, evaluate_every=2), train_policy),
}


# ---- TensorBoard ------------------------------------------------------------------------------------------------------


@needs_tensorboard
@pytest.mark.parametrize("kind", RUNS)
def test_tensorboard_holds_every_line_of_the_metrics(kind: str, tmp_path: Path) -> None:
    made, train = RUNS[kind]
    recipe = tracked(made(tmp_path), "tensorboard")
    train(recipe)
    found = events(recipe)
    assert found == logged(recipe)
    assert len(found["loss"]) >= 3


@needs_tensorboard
def test_warnings_are_logged_as_text(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    constant = replace(toy.E, function="tests.unit.training.toy:constant")
    recipe = tracked(toy.recipe(tmp_path, rewards=[constant], steps=20, batch_size=2, max_new_tokens=1), "tensorboard")
    train_policy(recipe)
    read = EventAccumulator(str(home(recipe) / "tensorboard")).Reload()
    (event,) = read.Tensors("warnings/text_summary")
    assert (event.step, event.tensor_proto.string_val[0][:19]) == (20, b"the reward was the ")


@needs_tensorboard
def test_trackers_change_neither_the_weights_nor_the_identity(tmp_path: Path) -> None:
    plain, followed = toy.recipe(tmp_path, "plain"), tracked(toy.recipe(tmp_path, "followed"), "tensorboard")
    assert tiny.bytes_of(train_policy(plain).path) == tiny.bytes_of(train_policy(followed).path)
    changed = replace(plain, output=replace(plain.output, trackers=["tensorboard", "wandb"], project="p"))
    assert run_identity(changed) == run_identity(plain)
    assert "trackers:" not in run_identity(plain).text, "runs of earlier versions keep theirs"


@needs_tensorboard
def test_a_finished_run_logs_nothing(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path)
    train_policy(recipe)
    assert train_policy(tracked(recipe, "tensorboard")).resumed == 3
    assert not (home(recipe) / "tensorboard").exists()


@needs_tensorboard
def test_starting_again_with_force_starts_the_curves_again(tmp_path: Path) -> None:
    recipe = tracked(toy.recipe(tmp_path, steps=3), "tensorboard")
    train_policy(recipe)
    other = replace(recipe, policy=replace(recipe.policy, steps=2, seed=1))
    train_policy(other, force=True)
    assert events(other) == logged(other)
    assert len(events(other)["loss"]) == 2


# ---- killed -----------------------------------------------------------------------------------------------------------


def long(folder: Path) -> PolicyRecipe:
    return toy.recipe(folder, steps=30, save_every=4, evaluate_every=10)


def train_apart(recipe: PolicyRecipe, **environment: str) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own: in this one wandb would remember what other tests set."""
    file = home(recipe).with_name("recipe.yaml")
    file.write_text(recipe_text(recipe))
    command = [sys.executable, "-m", "warmkit", "train", "policy", str(file), "--json"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    own = (
        {"HOME": str(home(recipe).with_name("home"))} if "wandb" in recipe.output.trackers else {}
    )  # where wandb keeps what it knows
    where = {**plain, "NO_COLOR": "1", **own, **environment}
    return forks.run(command, env=where, stdin=subprocess.DEVNULL, text=True)


@needs_tensorboard
@pytest.mark.parametrize("lines", [2, 10])
def test_after_a_kill_every_step_is_there_once_with_its_last_numbers(lines: int, tmp_path: Path) -> None:
    recipe = tracked(long(tmp_path), "tensorboard")
    kill_after(lines, "policy", recipe)
    resumed = json.loads(train_apart(recipe).stdout)["resumed"]  # event files are read in the order of their seconds
    assert resumed % 4 == 0
    assert len(list((home(recipe) / "tensorboard").iterdir())) == 2, "a file for each of the two processes"
    found = events(recipe)
    assert found == logged(recipe)
    assert [step for step, _ in found["reward"]] == list(range(1, 31))


@needs_tensorboard
def test_a_tracker_that_joins_a_killed_run_gets_the_steps_before(tmp_path: Path) -> None:
    recipe = long(tmp_path)
    kill_after(10, "policy", recipe)
    joined = tracked(recipe, "tensorboard")
    assert train_policy(joined).resumed >= 8
    assert events(joined) == logged(joined)
    assert len(events(joined)["loss"]) == 30


# ---- Weights & Biases, offline ----------------------------------------------------------------------------------------

HEADER, BLOCK = 7, 1 << 15
WHOLE, LAST = 1, 4


def chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of the chunks of a log in LevelDB's format."""
    place = HEADER
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        yield kind, data[place + 7 : place + 7 + length]
        place += 7 + length


def history(file: Path) -> dict[int, dict[str, Any]]:
    """Read the rows of an offline run's file, by step."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports]

    rows: dict[int, dict[str, Any]] = {}
    whole = b""
    for kind, part in chunks(file.read_bytes()):
        whole += part
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            if record.HasField("history"):
                items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                rows[record.history.step.num] = {key: value for key, value in items.items() if not key.startswith("_")}
    return rows


@needs_wandb
def test_wandb_holds_every_line_of_the_metrics_and_the_recipe(tmp_path: Path) -> None:
    recipe = tracked(toy.recipe(tmp_path), "wandb")
    done = train_apart(recipe, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 3, "what wandb says goes to stderr"
    (file,) = (home(recipe) / "wandb").glob("offline-run-*/*.wandb")
    lines = {line.pop("step"): line for line in map(json.loads, (home(recipe) / "metrics.jsonl").read_text().splitlines())}
    assert history(file) == lines
    assert b"max_new_tokens" in file.read_bytes()


@needs_wandb
def test_a_killed_run_keeps_its_name_at_wandb(tmp_path: Path) -> None:
    recipe = tracked(long(tmp_path), "wandb")
    kill_after(10, "policy", recipe, WANDB_MODE="offline", HOME=str(tmp_path))
    resumed = json.loads(train_apart(recipe, WANDB_MODE="offline").stdout)["resumed"]
    assert resumed >= 8
    files = sorted((home(recipe) / "wandb").glob("offline-run-*/*.wandb"))
    name = (home(recipe) / "wandb" / "id").read_text()
    assert [file.name for file in files] == [f"run-{name}.wandb"] * 2
    assert list(history(files[1])) == list(range(resumed + 1, 31))


@needs_wandb
def test_without_an_account_wandb_says_what_to_do(tmp_path: Path) -> None:
    done = train_apart(tracked(toy.recipe(tmp_path), "wandb"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    said = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert said.startswith("error: output.trackers: wandb: No API key")
    assert said.endswith(f"WANDB_MODE=offline logs to {tmp_path}/run/wandb alone")


# ---- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
@pytest.mark.parametrize("kind", RUNS)
def test_a_missing_library_is_told_before_anything_is_loaded(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    made, _ = RUNS[kind]
    recipe = tracked(made(tmp_path), name)
    (tmp_path / "llama" / "model.safetensors").unlink()
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_text(recipe))
    from warmkit.cli.app import app

    done = CliRunner().invoke(app, ["train", kind, str(file)])
    assert done.exit_code == 2
    assert f"error: output.trackers: {name} needs {name}; install it: pip install 'warmkit[track,train]'" in done.output
    assert not (home(recipe) / "metrics.jsonl").exists()


RECIPE = """\
model: {path: init}
data: {train: train.jsonl, validation: held-out.jsonl}
output:
  path: out
  trackers: [tensorboard, wandb]
  project: ours
"""


def test_recipes_name_trackers_and_warm_hands_them_to_its_runs(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    recipe = read_recipe(file, WarmRecipe).content
    runs = run_recipes(recipe, Path("out"))
    assert runs["run-2"].output == replace(recipe.output, path="out/runs/run-2")
    assert runs["run-2"].output.trackers == ["tensorboard", "wandb"]
    file.write_text(recipe_text(runs["run-2"]))
    assert read_recipe(file, RewardModelRecipe).content == runs["run-2"]


@pytest.mark.parametrize("wrong", ["[tensorbord]", "tensorboard", "[1]"])
def test_an_unknown_tracker_is_refused_with_its_line(wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("[tensorboard, wandb]", wrong))
    with pytest.raises(RecipeError, match=r":5: output\.trackers must be a list of tensorboard or wandb, found"):
        read_recipe(file, RewardModelRecipe)
