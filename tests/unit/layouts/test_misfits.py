"""What of two models does not fit is told by part, with the nearest layout, in a few lines."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import warmkit
from warmkit.errors import MismatchError
from warmkit.layouts.misfits import names_by_part, pairs_by_part, part_of

FILES = Path(__file__).parents[2] / "data" / "layouts"
Tensors = dict[str, Any]


def named(part: str, layers: range, *names: str) -> list[str]:
    return [f"{part}.{layer}.{name}.weight" for layer in layers for name in names]


def refused(reference: Path, other: Path, tmp_path: Path) -> list[str]:
    with pytest.raises(MismatchError) as caught:
        warmkit.soup([reference, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return [line.strip() for line in str(caught.value).splitlines()]


def changed(source: Path, folder: Path, change: Callable[[Tensors], Tensors], **config: Any) -> Path:
    shutil.copytree(source, folder)
    save_file(change(load_file(source / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    said = json.loads((source / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({key: each for key, each in said.items() if each != "gone"}))
    return folder


def test_parts_are_towers_lists_and_experts() -> None:
    parts = {
        "lm_head.weight": "lm_head",
        "model.norm.weight": "model.norm",
        "model.embed_tokens.weight": "model.embed_tokens",
        "model.visual.merger.mlp.0.weight": "model.visual",
        "visual.merger.mlp.0.weight": "visual",
        "transformer.h.0.attn.c_attn.weight": "transformer.h",
        "model.layers.1.mlp.switch_mlp.up_proj.weight": "model.layers.*.mlp.switch_mlp",
        "model.weight": "model",
    }
    assert {name: part_of(name) for name in parts} == parts


def test_layers_and_experts_of_two_counts_are_lists() -> None:
    ours = [*named("model.layers", range(4), "q", *(f"mlp.experts.{each}.w1" for each in range(8))), "norm.weight"]
    short = [name for name in ours if ".layers.3." not in name and ".experts.6." not in name and ".experts.7." not in name]
    missing = [name for name in ours if name not in short]
    assert names_by_part(missing, [], ours, "sft") == (
        ["'model.layers.*.mlp.experts' lacks 2 of 8: 6 to 7 (3 such lists)", "'model.layers' lacks 1 of 4: 3"],
        0,
    )
    assert names_by_part([], missing, short, "sft") == (
        [
            "'model.layers.*.mlp.experts' has 2 more than sft, which has 6: 6 to 7 (3 such lists)",
            "'model.layers' has 1 more than sft, which has 3: 3",
        ],
        0,
    )


def test_a_part_that_is_not_there_is_one_line() -> None:
    ours = [*named("model.layers", range(2), "q"), *named("visual.blocks", range(20), "q", "k", "v"), "visual.norm.weight"]
    missing = [name for name in ours if "visual" in name]
    lines, rest = names_by_part(missing, ["lm_head.weight"], ours, "sft")
    assert rest == 62
    assert lines == [
        "'visual': 61 of 61 tensors are missing: 'visual.blocks.*.q.weight', 'visual.blocks.*.k.weight' and 2 more such names",
        "extra tensor 'lm_head.weight', which sft lacks",
    ]


def test_shapes_of_a_part_are_told_by_one_of_them() -> None:
    ours = named("model.layers", range(9), "q", "k")
    assert pairs_by_part({name: f"tensor {name!r} is other" for name in [*ours[:8], "lm_head.weight"]}, ours) == [
        "tensor 'lm_head.weight' is other",
        "tensor 'model.layers.0.q.weight' is other",
        "and so 7 more of the 18 tensors of 'model.layers'",
    ]


def test_experts_of_one_layout_are_counted(tmp_path: Path) -> None:
    home = FILES / "mixtral" / "5"
    short = changed(home, tmp_path / "short", lambda found: {k: v for k, v in found.items() if ".experts.1." not in k})
    lines = refused(home, short, tmp_path)
    assert lines[:2] == [f"{short} does not fit:", "'model.layers.*.block_sparse_moe.experts' lacks 1 of 3: 1 (2 such lists)"]

    def wide(found: Tensors) -> Tensors:
        return found | {k.replace(".experts.0.", f".experts.{e}."): v for k, v in found.items() for e in range(3, 9)}

    lines = refused(home, changed(home, tmp_path / "wide", wide), tmp_path)
    assert lines[1:] == [
        f"'model.layers.*.block_sparse_moe.experts' has 6 more than {home}, which has 3: 3 to 8 (2 such lists)",
        "Give models with the same layers and experts; copy a checkpoint again if its files are not complete",
    ]


def test_a_tower_under_other_names_is_one_line_with_the_nearest_layout(tmp_path: Path) -> None:
    home = FILES / "llava"

    def odd(found: Tensors) -> Tensors:
        names = {name: name.replace("encoder.layers.0.self_attn", "stack.0.attention") for name in found}
        return {names[name]: value for name, value in found.items() if "out_proj.bias" not in name}

    lines = refused(home / "5", changed(home / "5", tmp_path / "odd", odd), tmp_path)
    lost, more = lines[1].partition(": ")[::2], lines[2].partition(": ")[::2]
    assert lost[0] == "'vision_tower'"
    assert lost[1].startswith("8 of 23 tensors are missing: 'vision_tower.encoder.layers.*.self_attn.k_proj.bias', ")
    assert more[1].startswith(f"7 tensors that {home / '5'} lacks: 'vision_tower.stack.*.attention.k_proj.bias', ")
    assert more[1].endswith(" and 5 more such names")
    assert lines[3:] == [
        "nearest is the layout 'canonical', with 31 of 38 kinds of names",
        "warmkit inspect shows what a model holds; a merge leaves tensors out with --exclude 'NAME*'",
    ]


def test_a_config_of_another_architecture_is_named_with_the_one_that_fits(tmp_path: Path) -> None:
    home = FILES / "mixtral"
    wrong = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    one = changed(home / "5", tmp_path / "one", lambda found: found, **wrong)
    lines = refused(one, changed(home / "memory", tmp_path / "two", lambda found: found, **wrong), tmp_path)
    said = next(line for line in lines if "nearest is the layout 'memory' of " in line)
    assert "MixtralForCausalLM" in said
    assert "with 12 of 12 kinds of names; its config.json says LlamaForCausalLM: give both models one that is true" in said


def test_names_of_no_table_say_so(tmp_path: Path) -> None:
    home = FILES / "mixtral" / "5"
    own = changed(home, tmp_path / "own", lambda found: {f"tok{n}.{n}": value for n, value in enumerate(found.values())})
    lines = refused(home, own, tmp_path)
    assert any("its names fit no table of layouts: 0 of " in line for line in lines)
    assert any("Most tensors differ" in line for line in lines)
    assert len(lines) < 40


def test_another_size_is_a_few_lines(tmp_path: Path) -> None:
    home = FILES / "llava" / "5"
    big = changed(home, tmp_path / "big", lambda found: {k: np.concatenate([v, v], -1) for k, v in found.items()})
    lines = refused(home, big, tmp_path)
    assert any("and so " in line and "more of the" in line for line in lines)
    assert len(lines) < 12
