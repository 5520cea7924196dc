"""Two processes of `accelerate launch` compute what one does: DDP and FSDP2, resumed after a kill, saved as any model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forks
from tests.unit.training import tiny, toy
from warmkit.errors import UsageError
from warmkit.modeling.reward_model import load_scorer
from warmkit.recipes.recipe import recipe_text
from warmkit.training.distributed import Group, group, refuse_group
from warmkit.training.policy import train_policy
from warmkit.training.policy_recipe import PolicyRecipe, ValueSection
from warmkit.training.recipe_sections import LoraSection, RewardModelRecipe, SftRecipe
from warmkit.training.reward_modeling import train_reward_model
from warmkit.training.sft import train_sft

pytest.importorskip("accelerate")

LAUNCH = (
    *("-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
    *("--dynamo_backend", "no", "--main_process_port", "0"),
)
KINDS = {"ddp": ["--multi_gpu"], "fsdp": ["--use_fsdp", "--fsdp_version", "2"]}
TOLERANCE = 2e-5  # rounding, through six steps of Adam


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


Recipe = RewardModelRecipe | SftRecipe | PolicyRecipe


def launch(kind: str, *what: object) -> None:
    command = [sys.executable, *LAUNCH, *KINDS[kind], *map(str, what)]
    environment = {**os.environ, **ENVIRONMENT}
    done = forks.run(command, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr


def recipes(folder: Path, kind: str) -> dict[str, Recipe]:
    """Return what is trained, by name, the directories named after the kind."""
    # a large epsilon, because Adam makes whole steps of what is but rounding: a bias of keys has no gradient
    policy: dict[str, Any] = {"save_every": 2, "steps": 5, "mu": 0.3, "epsilon": 1e-4, "evaluate_every": 5}
    how = {"save_every": 2, "steps": 6, "weight_decay": 0.1, "epsilon": 1e-4}

    def of(architecture: str, name: str, **more: Any) -> RewardModelRecipe:
        return tiny.recipe(folder, architecture, f"{kind}-{name}", **how, **more)

    gpt2 = of("gpt2", "sft", accumulation=2, keep=[3])
    sft = SftRecipe(gpt2.model, gpt2.data, gpt2.output, tiny.as_sft(gpt2.rm))
    parts: dict[str, Any] = {"batch_size": 5, "accumulation": 2, **policy}
    return {
        "policy": toy.recipe(folder, f"{kind}-policy", **parts),
        "policy-resumed-killed": toy.recipe(folder, f"{kind}-policy-resumed-killed", **parts),
        "policy-init": toy.recipe(folder, f"{kind}-policy-init", anchor="init", **policy),
        "policy-value": replace(
            toy.recipe(folder, f"{kind}-policy-value", baseline="value", **policy), value=ValueSection(1e-3, 1)
        ),
        "rm": of("llama", "rm", evaluate_every=3),
        "rm-resumed-killed": of("llama", "rm-resumed-killed", evaluate_every=3),
        "rm-killed": of("llama", "rm-killed", evaluate_every=3),
        "bert": of("bert", "bert", batch_size=7, accumulation=2),
        "sft": sft,
    }


def follow(recipe: Recipe) -> Path:
    if isinstance(recipe, PolicyRecipe):
        return train_policy(recipe).path
    return (train_sft(recipe) if isinstance(recipe, SftRecipe) else train_reward_model(recipe)).path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """What one process makes of the recipes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("together")
    for name, each in recipes(home, "one").items():
        if "killed" not in name:
            follow(each)
    yield home
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, folder: Path) -> str:
    """Two processes have followed all recipes."""
    files = folder / request.param
    files.mkdir()
    for name, each in recipes(folder, request.param).items():
        (files / f"{name}.yaml").write_text(recipe_text(each))
    launch(request.param, Path(__file__).with_name("together.py"), files)
    return request.param


def assert_close(found: Path, wanted: Path) -> None:
    ours, theirs = tiny.tensors(found), tiny.tensors(wanted)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=TOLERANCE, rtol=0)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rm", "bert", "sft", "policy", "policy-init", "policy-value"])
def test_two_processes_compute_what_one_does(folder: Path, kind: str, name: str) -> None:
    found, wanted = folder / f"{kind}-{name}", folder / f"one-{name}"
    assert_close(found / "model", wanted / "model")
    for file in ("config.json", "tokenizer_config.json"):
        assert (found / "model" / file).read_bytes() == (wanted / "model" / file).read_bytes()
    for ours, theirs in zip(metrics(found), metrics(wanted), strict=True):
        assert ours.keys() == theirs.keys()
        for key in (key for key in ours if "second" not in key):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-4), key
    ours, theirs = (json.loads((each / "summary.json").read_text()) for each in (found, wanted))
    assert ours["steps"] == theirs["steps"]


@pytest.mark.slow
def test_a_model_kept_on_the_way_is_that_of_one_process(folder: Path, kind: str) -> None:
    assert_close(folder / f"{kind}-sft" / "step-3", folder / "one-sft" / "step-3")


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bytes(folder: Path, kind: str) -> None:
    for name in ("rm", "policy"):
        resumed, whole = folder / f"{kind}-{name}-resumed-killed", folder / f"{kind}-{name}"
        assert tiny.bytes_of(resumed / "model") == tiny.bytes_of(whole / "model")
        assert not (resumed / "state.pt").exists()


@pytest.mark.slow
def test_a_state_of_two_processes_is_one_for_any_number(folder: Path, kind: str) -> None:
    content = recipes(folder, kind)["rm-killed"]
    assert isinstance(content, RewardModelRecipe)
    result = train_reward_model(content)
    assert result.resumed == 4
    assert_close(result.path, folder / "one-rm" / "model")


@pytest.mark.slow
def test_what_two_processes_leave_scores_and_merges_like_any_model(folder: Path, kind: str) -> None:
    import warmkit

    found = folder / f"{kind}-rm" / "model"
    pairs = [(each["prompt"], each["chosen"]) for each in tiny.rows(5)]
    assert load_scorer(found).score(pairs) == pytest.approx(load_scorer(folder / "one-rm" / "model").score(pairs), abs=1e-3)
    warmkit.soup([found, folder / "one-rm" / "model"], folder / f"{kind}-soup")


# ---- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_mistake_that_all_processes_meet_is_said_once(tmp_path: Path) -> None:
    content = tiny.recipe(tmp_path)
    tiny.write(Path(content.data.train), [{"prompt": "a", "chosen": "b"}])
    (tmp_path / "run.yaml").write_text(recipe_text(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = [
        forks.Popen(
            [sys.executable, "-m", "warmkit", "train", "rm", str(tmp_path / "run.yaml")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    (out, error), silence = (each.communicate(timeout=120) for each in processes)
    assert out == ""
    assert [line.partition(" ")[0] for line in error.splitlines() if not line.startswith(" ")] == ["error:"]
    assert content.data.train in error
    assert silence == ("", "")
    assert [each.returncode for each in processes] == [1, 1]


def several(monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", **environment}.items():
        monkeypatch.setenv(name, value)
    group.cache_clear()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP 1 is not supported; launch with --fsdp_version 2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed is not supported"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "the precision is a key of the recipe"),
    ],
)
def test_what_is_not_supported_is_refused(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str) -> None:
    several(monkeypatch, **environment)
    with pytest.raises(UsageError, match=message):
        group()
    group.cache_clear()


def test_what_runs_in_one_process_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    several(monkeypatch)
    with pytest.raises(UsageError, match="warm runs in one process; start it without accelerate launch"):
        refuse_group("warm")
    several(monkeypatch, RANK="1", ACCELERATE_USE_FSDP="true")
    with pytest.raises(SystemExit):
        refuse_group("warm")
    group.cache_clear()


def test_a_batch_that_leaves_a_process_without_examples_is_refused() -> None:
    with pytest.raises(UsageError, match=r"rm\.batch_size in 2 parts \(accumulation\) leaves 1 examples for 2 processes"):
        Group(0, 2).check_parts([[1, 2], [3]], "rm")
    with pytest.raises(UsageError, match=r"policy\.batch_size in 3 parts \(accumulation\) leaves 1 examples for 2 processes"):
        Group(0, 2, sharded=True).check_parts([range(5)], "policy", each=3)


def test_every_example_goes_to_one_process() -> None:
    shares = [Group(rank, 3).mine(range(8)) for rank in range(3)]
    assert sorted(each for share in shares for each in share) == list(range(8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"lora": LoraSection()}, "lora: adapters are not sharded"), ({"optimizer": "adafactor"}, "adafactor factors whole")],
)
def test_what_cannot_be_sharded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    from warmkit.training import sharding

    monkeypatch.setattr(sharding, "group", lambda: Group(0, 2, sharded=True))
    how = replace(tiny.recipe(tmp_path).rm, **{key: value for key, value in changes.items() if key != "lora"})
    with pytest.raises(UsageError, match=message):
        sharding.check_shards(how, "rm", changes.get("lora"))
