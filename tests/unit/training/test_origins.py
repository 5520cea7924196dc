"""A run goes on only from what it began with: base, head, SFT model and reward models, by what they hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.training import tiny, toy
from warmkit.engine import contents as module
from warmkit.errors import ChangedError, CheckpointError, FormatError, OutputError
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.training.origins import UNKNOWN
from warmkit.training.policy import train_policy
from warmkit.training.recipe_sections import SftRecipe, WarmRecipe, WarmSection
from warmkit.training.reward_modeling import train_reward_model
from warmkit.training.run import open_run
from warmkit.training.run_identity import run_identity
from warmkit.training.sft import train_sft
from warmkit.training.warp_recipe import Variation, WarpRecipe, WarpSection


def reward_model(folder: Path) -> Any:
    return tiny.recipe(folder, "bert", steps=4, save_every=2)


def sft(folder: Path) -> Any:
    base = tiny.recipe(folder, steps=4, save_every=2)
    return SftRecipe(base.model, base.data, base.output, tiny.as_sft(base.rm))


def policy(folder: Path) -> Any:
    return toy.recipe(folder, steps=4, save_every=2)


RUNS: dict[str, tuple[Callable[[Path], Any], Callable[..., Any]]] = {
    "rm": (reward_model, train_reward_model),
    "sft": (sft, train_sft),
    "policy": (policy, train_policy),
}


class Killed(BaseException):
    pass


def killed(train: Callable[..., Any], recipe: Any) -> None:
    """Begin a run and stop it in its last step."""
    done = [0]

    def advance(steps: int, total: int) -> None:
        done[0] += steps
        if done[0] >= total:
            raise Killed

    with pytest.raises(Killed):
        train(recipe, advance=advance)
    assert (Path(recipe.output.path) / "state.pt").exists()


def disturbed(checkpoint: Path) -> Path:
    """Overwrite the weights of a checkpoint by others of the same names and size."""
    file = checkpoint / "model.safetensors"
    tensors = {name: each + 0.01 if each.is_floating_point() else each for name, each in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    return checkpoint


@pytest.mark.parametrize("kind", RUNS)
def test_a_killed_run_does_not_go_on_from_other_weights(kind: str, tmp_path: Path) -> None:
    make, train = RUNS[kind]
    recipe = make(tmp_path)
    base = Path(recipe.model.path)
    shutil.copytree(base, tmp_path / "before")
    killed(train, recipe)
    disturbed(base)
    with pytest.raises(ChangedError) as error:
        train(recipe)
    assert f"began with another model.path: in {base}, model.safetensors has another content (xxh3-128 " in str(error.value)
    assert "put back what it began with, choose another output.path, or delete it and start again with --force" in str(
        error.value
    )
    assert (Path(recipe.output.path) / "state.pt").exists()
    shutil.rmtree(base)
    shutil.copytree(tmp_path / "before", base)  # other inodes and times, as on another machine
    assert getattr(train(recipe), "resumed", 2) == 2
    assert not (Path(recipe.output.path) / "state.pt").exists()


def test_with_force_it_starts_again(tmp_path: Path) -> None:
    recipe = reward_model(tmp_path)
    killed(train_reward_model, recipe)
    disturbed(Path(recipe.model.path))
    assert train_reward_model(recipe, force=True).resumed == 0


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_config_and_tokenizer_belong_to_what_a_run_began_with(name: str, tmp_path: Path) -> None:
    recipe = reward_model(tmp_path)
    killed(train_reward_model, recipe)
    file = Path(recipe.model.path) / name
    file.write_text(json.dumps({**json.loads(file.read_text()), "more": 1}))
    with pytest.raises(ChangedError, match=f"{name} has another content"):
        train_reward_model(recipe)


def test_every_checkpoint_that_a_policy_learns_from_is_named(tmp_path: Path) -> None:
    base = toy.recipe(tmp_path)
    models = [RewardTerm(name="m", model="a"), RewardTerm(name="e", model=["b", "c"]), toy.E]
    recipe = replace(base, model=replace(base.model, sft="s"), rewards=models, controls=[RewardTerm(model="a")])
    assert run_identity(recipe).sources == {
        base.model.path: ["model.path"],
        "s": ["model.sft"],
        "a": ["rewards.m", "controls.model"],
        "b": ["rewards.e"],
        "c": ["rewards.e"],
    }


def test_the_pipelines_name_theirs(tmp_path: Path) -> None:
    base, runs = tiny.recipe(tmp_path, "bert"), WarmSection(inits=["x", "y"])
    assert run_identity(WarmRecipe(base.model, base.data, base.output, base.rm, runs)).sources == {
        base.model.path: ["model.path"],
        "x": ["warm.inits"],
        "y": ["warm.inits"],
    }
    model, head = replace(base.model, head="probe"), {"probe": ["model.head"]}
    assert run_identity(replace(base, model=model)).sources == {base.model.path: ["model.path"], **head}
    one = toy.recipe(tmp_path)
    section = WarpSection(policies=["p"], vary=[Variation(rewards=[RewardTerm(name="v", model="r")])])
    assert run_identity(WarpRecipe(one.model, one.data, one.rewards, one.output, one.policy, section)).sources == {
        one.model.path: ["model.path"],
        "p": ["warp.policies"],
        "r": ["warp.vary[0].rewards.v"],
    }


def test_a_run_of_an_older_version_goes_on_with_a_note_and_is_compared_from_then_on(tmp_path: Path) -> None:
    recipe = reward_model(tmp_path)
    killed(train_reward_model, recipe)
    (Path(recipe.output.path) / "origins.json").unlink()
    assert open_run(recipe, force=False).notes == [UNKNOWN]
    assert open_run(recipe, force=False).notes == []
    (Path(recipe.output.path) / "origins.json").unlink()
    done = train_reward_model(recipe)
    assert (done.resumed, done.summary["notes"]) == (2, [UNKNOWN])
    disturbed(Path(recipe.model.path))
    with pytest.raises(ChangedError):
        train_reward_model(recipe)


def test_weights_that_were_not_touched_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = reward_model(tmp_path)
    killed(train_reward_model, recipe)
    monkeypatch.setattr(module, "file_digest", lambda file: pytest.fail(f"{file} was hashed again"))
    open_run(recipe, force=False)


def test_a_run_that_has_done_nothing_yet_takes_other_weights(tmp_path: Path) -> None:
    recipe = reward_model(tmp_path)
    open_run(recipe, force=False)
    disturbed(Path(recipe.model.path))
    open_run(recipe, force=False)


def test_a_finished_run_needs_nothing_that_it_began_with(tmp_path: Path) -> None:
    recipe = reward_model(tmp_path)
    first = train_reward_model(recipe)
    shutil.rmtree(recipe.model.path)
    assert train_reward_model(recipe).summary == first.summary
    assert train_reward_model(recipe).summary == first.summary, "the record stays whole"


def test_a_base_that_is_not_there_is_told(tmp_path: Path) -> None:
    recipe = reward_model(tmp_path)
    shutil.rmtree(recipe.model.path)
    with pytest.raises(CheckpointError, match="no such file"):
        train_reward_model(recipe)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b'{"checkpoints": {"a": {"keys": [], "files": {"b": {}}}}}', b"\xff"])
def test_a_record_of_another_form_is_named(content: bytes, tmp_path: Path) -> None:
    recipe = reward_model(tmp_path)
    run = open_run(recipe, force=False)
    run.save_state({"step": 1})
    (run.path / "origins.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"origins\.json: .*; put it back, or delete"):
        open_run(recipe, force=False)


# ---- what a finished run left ----------------------------------------------------------------------------------------


def test_a_finished_run_whose_model_was_changed_says_so(tmp_path: Path) -> None:
    recipe = reward_model(tmp_path)
    done = train_reward_model(recipe)
    assert "notes" not in done.summary
    disturbed(done.path)
    (note,) = train_reward_model(recipe).summary["notes"]
    assert "model: was changed after it was finished: model.safetensors has another content" in note
    assert torch.equal(load_file(done.path / "model.safetensors")["classifier.bias"], torch.full((1,), 0.01))


def test_a_finished_run_whose_model_is_gone_says_so(tmp_path: Path) -> None:
    recipe = reward_model(tmp_path)
    shutil.rmtree(train_reward_model(recipe).path)
    with pytest.raises(OutputError, match=r"its model is gone; delete .* to train it again"):
        train_reward_model(recipe)
