"""The examples, the papers' algorithms in plain torch, leave the weights that the commands leave."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forks
from tests.unit.training import tiny, toy
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.pipelines.warm import run_warm
from warmkit.pipelines.warp import run_warp
from warmkit.training.recipe_sections import DataSection, ModelSection, RewardOptimization, RunOutput, WarmRecipe, WarmSection
from warmkit.training.reward_modeling import train_reward_model
from warmkit.training.warp_recipe import WarpRecipe, WarpSection

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.usefixtures("children_are_forks")


def example(name: str, out: Path, **options: Any) -> str:
    """Run an example as a reader does; return what it says."""
    command = [sys.executable, str(EXAMPLES / name), "-o", str(out)]
    for key, value in options.items():
        command += ["--" + key.replace("_", "-"), *map(str, value if isinstance(value, list) else [value])]
    done = forks.run(command, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apart(first: Path, second: Path) -> float:
    """Return the distance between the weights of two models."""
    a, b = tiny.tensors(first), tiny.tensors(second)
    assert a.keys() == b.keys()
    return float(torch.cat([(a[name] - b[name]).double().flatten() for name in a]).norm())


def learned_rewards(folder: Path, architecture: str) -> Path:
    return train_reward_model(tiny.recipe(folder, architecture, lr=3e-3)).path


@pytest.mark.parametrize("name", ["warm.py", "warp.py"])
def test_an_example_is_short_and_takes_merges_and_random_numbers_alone_from_warmkit(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert text.count("\n") < 250
    imports = re.findall(r"^\s*(?:import|from) (warmkit\S*)", text, re.MULTILINE)
    assert imports == ["warmkit", "warmkit.common.random_streams"]
    assert set(re.findall(r"\bwarmkit\.(\w+)\(", text)) <= {"merge", "liti"}


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_the_example_of_warm_leaves_the_bytes_of_the_command(architecture: str, tmp_path: Path) -> None:
    loud = {"hidden_dropout_prob": 0.1} if architecture == "bert" else {}
    init = tiny.make(tmp_path / "init", architecture, **loud)
    train = tiny.write(tmp_path / "train.jsonl", tiny.rows(40))
    validation = tiny.write(tmp_path / "validation.jsonl", tiny.rows(40, seed=50))
    how: dict[str, Any] = {"steps": 12, "batch_size": 7, "warmup": 3, "seed": 5}  # batches run over the end of an epoch
    pool: dict[str, Any] = {"runs": 3, "lr": [3e-3, 1e-3, 1e-6]}
    content = WarmRecipe(
        ModelSection(str(init)),
        DataSection(str(train), str(validation)),
        RunOutput(str(tmp_path / "command")),
        RewardOptimization(precision="float32", order=5, **how),
        WarmSection(jobs=1, orders=0, seed=5, **pool),
    )
    summary = run_warm(content).summary
    out = tmp_path / "example"
    said = example("warm.py", out, model=init, train=train, validation=validation, **how, **pool)

    for name, theirs in {"probe": "probe/model", "model": "model"}.items():
        assert tiny.bytes_of(out / name) == tiny.bytes_of(tmp_path / "command" / theirs), name
    for name in ("run-1", "run-2", "run-3"):
        assert tiny.bytes_of(out / name) == tiny.bytes_of(tmp_path / "command" / "runs" / name / "model"), name
        found = summary["individuals"][name]
        accuracies = f"accuracy {found['ranking']['accuracy']:.3f}, on the other half {found['validation']['accuracy']:.3f}"
        assert re.search(rf"/{name}: .* {accuracies}$", said, re.MULTILINE), said
    assert apart(out / "run-1", out / "probe") > 0.1
    assert f"average of 2: accuracy on the other half {summary['final']['validation']['accuracy']:.3f}" in said


@pytest.mark.parametrize(("policy", "judge", "share"), [("gpt2", "gpt2", 0.0), ("llama", "bert", 1e-4)])
def test_the_example_of_warp_leaves_the_weights_of_the_command(policy: str, judge: str, share: float, tmp_path: Path) -> None:
    """The same bytes; small Llamas have a forward pass of their own in the command: rounding, a `share` of what was learned."""
    how: dict[str, Any] = {"steps": 7, "batch_size": 5, "lr": 1e-3, "warmup": 2, "mu": 0.1, "beta": 0.3, "seed": 2}
    how["epsilon"] = 1e-4  # with less Adam makes whole steps of a gradient that is but rounding
    base, out = toy.recipe(tmp_path, "command", policy, order=2, **how), tmp_path / "example"
    rewards = learned_rewards(tmp_path / "judge", judge)
    pool: dict[str, Any] = {"iterations": 2, "runs": 2, "eta": 0.5, "final_eta": 0.8}
    section = WarpSection(jobs=1, etas=[], **pool)
    run_warp(WarpRecipe(base.model, base.data, [RewardTerm(model=str(rewards))], base.output, base.policy, section))
    sampling = {"samples": base.policy.samples, "max_new_tokens": base.policy.max_new_tokens}
    example("warp.py", out, model=base.model.path, reward_model=rewards, train=base.data.train, **how, **pool, **sampling)

    runs = {f"iteration-{i}/run-{m}": f"iteration-{i}/runs/run-{m}/model" for i in (1, 2) for m in (1, 2)}
    merges = ("iteration-1/init", "iteration-2/merged", "model")
    for name, theirs in {**runs, **dict(zip(merges, merges))}.items():
        learned = apart(out / name, Path(base.model.path))
        assert learned > 0.1
        assert apart(out / name, tmp_path / "command" / theirs) <= share * learned, name
        if not share:
            assert tiny.bytes_of(out / name) == tiny.bytes_of(tmp_path / "command" / theirs), name
