"""The commands that are killed, on inputs small enough that one takes a moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.conftest import save

LAYERS, WIDTH = 6, 96


@dataclass(frozen=True)
class Case:
    """A command that writes `out`.

    Attributes:
        name: In the table.
        make: Writes the inputs into `in` of a folder and returns the command's arguments.
        earlier: Writes what is at `out` before; None for nothing.
        training: Whether only what was learned counts, not what a clock says.
    """

    name: str
    make: Callable[[Path], list[str]]
    earlier: Callable[[Path], None] | None = None
    training: bool = False


def _weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = [f"model.layers.{layer}.self_attn.{part}.weight" for layer in range(LAYERS) for part in ("q_proj", "o_proj")]
    base = {"model.embed_tokens.weight": torch.randn(200, WIDTH, generator=generator)}
    return {**base, **{name: torch.randn(WIDTH, WIDTH, generator=generator) for name in names}}


def _models(folder: Path, count: int, shards: int = 2) -> list[str]:
    for number in range(count):
        save(folder / "in" / f"m{number}", _weights(number), shards=shards)
    return [f"in/m{number}" for number in range(count)]


def _adapter(folder: Path, seed: int) -> str:
    generator, path = torch.Generator().manual_seed(seed), folder / "in" / f"adapter{seed}"
    path.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "in/m0", "target_modules": ["q_proj"]}
    (path / "adapter_config.json").write_text(json.dumps(config))
    factors = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight": torch.randn(shape, generator=generator)
        for layer in range(LAYERS)
        for side, shape in (("A", (4, WIDTH)), ("B", (WIDTH, 4)))
    }
    save_file(factors, path / "adapter_model.safetensors")
    return f"in/m0+in/adapter{seed}"


def _merge(folder: Path) -> list[str]:
    init, *models = _models(folder, 3)
    return ["merge", "--init", init, *models, "--max-shard-size", "200KB", "--threads", "2", "-o", "out"]


def _edits(folder: Path) -> list[str]:
    init, *models = _models(folder, 3)
    return ["merge", "--method", "ties", "--init", init, *models, "--threads", "2", "-o", "out"]


def _sweep(folder: Path) -> list[str]:
    init, model = _models(folder, 2)
    return ["liti", "--init", init, model, "--eta", "0.1,0.5,0.9", "--threads", "2", "-o", "out"]


def _adapters(folder: Path) -> list[str]:
    init = _models(folder, 1)[0]
    return ["merge", "--init", init, _adapter(folder, 1), _adapter(folder, 2), "--threads", "2", "-o", "out"]


def _extract(folder: Path) -> list[str]:
    init, model = _models(folder, 2)
    return ["extract-lora", "--init", init, model, "--rank", "4", "-o", "out"]


def _greedy(folder: Path) -> list[str]:
    models = _models(folder, 3, shards=1)
    return ["soup", "--greedy", "--score", "cksum < {}/model.safetensors | cut -c1-6", *models, "-o", "out"]


def _same_container(folder: Path) -> list[str]:
    """Average a run whose files torch wrote, into files of the same kind."""
    for step in (10, 20):
        place = folder / "in" / "run" / f"step_{step}"
        place.mkdir(parents=True)
        weights = _weights(step)
        moments = {"exp_avg": weights["model.embed_tokens.weight"] / 9, "exp_avg_sq": weights["model.embed_tokens.weight"] ** 2}
        torch.save({"state_dict": weights, "optimizer": {"state": {0: moments}}}, place / "last.ckpt")
    how = ["--as", "same", "--optimizer", "average", "--allow-pickle", "--threads", "2"]
    return ["average", "in/run", *how, "-o", "out"]


def _old_model(out: Path) -> None:
    save(out, {name: torch.zeros_like(value) for name, value in _weights(0).items()})


def _forced(make: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
    return lambda folder: [*make(folder), "--force"]


MERGES = (
    Case("merge", _merge),
    Case("merge --force", _forced(_merge), _old_model),
    Case("merge, edits", _edits),
    Case("sweep", _sweep),
    Case("adapters", _adapters),
    Case("extract-lora", _extract),
    Case("extract-lora --force", _forced(_extract), _old_model),
    Case("average --as same", _same_container),
    Case("soup --greedy", _greedy),
    Case("soup --greedy --force", _forced(_greedy), _old_model),
)


# ---- trainings -------------------------------------------------------------------------------------------------------------


def _recipe(verb: str, build: Callable[[Any, Path], Any]) -> Callable[[Path], list[str]]:
    """Write a recipe of the tests' tiny models whose paths begin at the folder."""

    def make(folder: Path) -> list[str]:
        from warmkit.recipes.recipe import recipe_text

        inputs = folder / "in"
        inputs.mkdir(parents=True)
        recipe = build(None, inputs)
        recipe = replace(recipe, output=replace(recipe.output, path=str(folder / "out")))
        (inputs / "recipe.yaml").write_text(recipe_text(recipe))
        return [*verb.split(), "in/recipe.yaml", "--quiet"]

    return make


def _reward_model(_: Any, folder: Path) -> Any:
    from tests.unit.training import tiny

    return tiny.recipe(folder, "bert", steps=24, save_every=4, batch_size=6, dropout=0.1, keep=[9])


def _sft(_: Any, folder: Path) -> Any:
    from tests.unit.training import tiny
    from warmkit.training.recipe_sections import SftRecipe

    base = tiny.recipe(folder, "gpt2", steps=24, save_every=4, batch_size=6, dropout=0.1, keep=[9])
    return SftRecipe(base.model, base.data, base.output, tiny.as_sft(base.rm))


def _policy(_: Any, folder: Path) -> Any:
    from tests.unit.training import toy

    return toy.recipe(folder, steps=12, save_every=3, evaluate_every=6, mu=0.1)


def _warm(_: Any, folder: Path) -> Any:
    from tests.unit.training import tiny
    from warmkit.training.recipe_sections import WarmRecipe, WarmSection

    base = tiny.recipe(folder, "bert", steps=12, save_every=4, dropout=0.1, lr=3e-3)
    return WarmRecipe(base.model, base.data, base.output, base.rm, WarmSection(runs=2, jobs=2, orders=2, lr=[3e-3, 1e-3]))


def _warp(_: Any, folder: Path) -> Any:
    from tests.unit.training import toy
    from warmkit.training.warp_recipe import WarpRecipe, WarpSection

    base = toy.recipe(folder, steps=8, lr=3e-3, mu=0.1, save_every=3, evaluate_every=4)
    section = WarpSection(jobs=2, eta=0.5, etas=[0.0, 1.0], iterations=2, runs=2)
    return WarpRecipe(base.model, base.data, base.rewards, base.output, base.policy, section)


TRAININGS = (
    Case("train rm", _recipe("train rm", _reward_model), training=True),
    Case("train sft", _recipe("train sft", _sft), training=True),
    Case("train policy", _recipe("train policy", _policy), training=True),
    Case("warm", _recipe("warm", _warm), training=True),
    Case("warp", _recipe("warp", _warp), training=True),
)


def content(out: Path, training: bool) -> dict[str, bytes]:
    """Return what a command wrote, by path, without what a clock says."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): _timeless(path) for path in files if not training or _learned(path)}


def _learned(path: Path) -> bool:
    return path.suffix == ".safetensors" or path.name == "metrics.jsonl" or path.parent.name == "steps"


def _timeless(path: Path) -> bytes:
    body = path.read_bytes()
    if path.name == "warmkit.json":
        return json.dumps({key: value for key, value in json.loads(body).items() if key != "created"}).encode()
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in body.splitlines()]
        return json.dumps([{key: value for key, value in row.items() if "second" not in key} for row in rows]).encode()
    if path.parent.name == "steps":
        return json.dumps(json.loads(body).get("result")).encode()
    return body


def clear(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
