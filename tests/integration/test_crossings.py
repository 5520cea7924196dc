"""Every kind of input with every kind of merge: the bytes are those of plain files of the same weights."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import warmkit
from tests.conftest import CONFIG, Family, make_family, save
from tests.unit.sources.web import Web
from warmkit import LayerRange, Slice

MERGES: dict[str, dict[str, Any]] = {
    "lerp": {"method": "lerp", "coefficients": [0.5, 0.3, 0.2]},
    "slerp, two etas": {"method": "slerp", "eta": [0.3, 1.0]},
    "ties": {"method": "ties", "density": 0.5},
    "dare-ties, eta": {"method": "dare-ties", "density": 0.5, "eta": 0.7},
    "some tensors alone": {"method": "slerp", "only": ["model.layers.*"]},
    "a gradient over depth": {"method": "task-arithmetic", "coefficients": [[0.0, 1.0], 0.5, [1.0, 0.0]]},
}


def plain(folder: Path, source: str, **how: Any) -> Path:
    """Write what a source stands for as a plain checkpoint."""
    return save(folder, {name: lazy.load() for name, lazy in warmkit.open_checkpoint(source, **how).items()})


def adapter(folder: Path, on: Path, seed: int) -> Path:
    """Write an adapter by hand, on all layers' attention and MLP."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"attn": (8, 8), "mlp": (24, 8)}
    tensors = {}
    for layer in range(3):
        for module, (out, width) in shapes.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(2, width, generator=draw)
            tensors[f"{name}.lora_B.weight"] = 0.1 * torch.randn(out, 2, generator=draw)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["attn", "mlp"]}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(on)}))
    return folder


def pickled(folder: Path, of: Path) -> Path:
    folder.mkdir()
    tensors = {name: lazy.load() for name, lazy in warmkit.open_checkpoint(of).items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[tuple[Family, str, list[str], list[Path]]]:
    """An init from a server; an adapter on it, a pickle and a streamed model; and plain files of the same three."""
    family = make_family(tmp_path)
    with Web(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        init = f"{server.address}/{family.init.name}"
        lora = adapter(tmp_path / "lora", family.init, 7)
        models = [f"{family.init}+{lora}", str(pickled(tmp_path / "torch", family.b)), f"{server.address}/{family.c.name}"]
        same = [plain(tmp_path / "dense", models[0]), family.b, family.c]
        yield family, init, models, same
        server.shutdown()


@pytest.mark.parametrize("name", MERGES)
def test_inputs_of_all_kinds_give_the_bytes_of_plain_ones(
    name: str, sources: tuple[Family, str, list[str], list[Path]], tmp_path: Path
) -> None:
    family, init, models, same = sources
    result = warmkit.merge(models, tmp_path / "mixed", init=init, allow_pickle=True, **MERGES[name])
    warmkit.merge(same, tmp_path / "expected", init=family.init, **MERGES[name])
    found = files(tmp_path / "mixed")
    assert len(found) == len(result.outputs)
    assert found == files(tmp_path / "expected")
    for path in result.outputs.values():
        assert warmkit.open_checkpoint(path).config["model_type"] == "llama"


def test_an_adapter_goes_on_a_streamed_base_and_on_a_pickle(
    sources: tuple[Family, str, list[str], list[Path]], tmp_path: Path
) -> None:
    family, init, _, (dense, *_) = sources
    torch_base = pickled(tmp_path / "torch-base", family.init)
    for number, base in enumerate((init, torch_base)):
        out = tmp_path / f"out-{number}"
        warmkit.liti(f"{base}+{tmp_path / 'lora'}", out, init=family.init, eta=1.0, allow_pickle=True)
        assert files(out) == files(dense)


def test_layers_of_an_adapter_and_of_a_pickle_are_stacked(
    sources: tuple[Family, str, list[str], list[Path]], tmp_path: Path
) -> None:
    _, _, models, same = sources
    outputs = []
    for number, (first, second) in enumerate((models[:2], same[:2])):
        slices = [Slice((LayerRange(first, 0, 2),)), Slice((LayerRange(second, 1, 3),))]
        warmkit.merge_slices(slices, tmp_path / f"stack-{number}", allow_pickle=True)
        outputs.append(files(tmp_path / f"stack-{number}"))
    assert outputs[0] == outputs[1]
