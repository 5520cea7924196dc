"""Recipes of mergekit do here what their documentation says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import warmkit
from tests.conftest import Family, weights
from tests.unit.layouts.test_vocabularies import make
from tests.unit.mergekit.reference import Merge, arc, breadcrumbs, directions, fused, gradient, karcher, model_stock, ties
from warmkit.cli.merge_recipe import read_slices
from warmkit.errors import RecipeError
from warmkit.mergekit.explain import explain
from warmkit.mergekit.method_table import KNOWN
from warmkit.mergekit.schema import is_mergekit
from warmkit.mergekit.translate import Translation, read_mergekit
from warmkit.recipes.recipe import MergeRecipe, read_recipe
from warmkit.verbs.merge import merge

MODELS = "models:\n  - {model: @a, parameters: {weight: 0.7}}\n  - {model: @b, parameters: {weight: 0.5}}\n"
PLAIN = "models:\n  - model: @a\n  - model: @b\n"
THREE = PLAIN + "  - model: @c\n"
T = "parameters:\n  t:\n    - {filter: attn, value: [0, 0.5, 1]}\n    - {filter: '*', value: 0.25}\n"
TIES = """\
models:
  - {model: @a, parameters: {density: [1, 0.7, 0.1], weight: 1.0}}
  - model: @b
    parameters:
      density: [{filter: attn, value: 0.33}, {value: 0.5}]
      weight: [{filter: mlp, value: 0.5}, {value: 0.2}]
parameters: {int8_mask: true}
"""
NEAR = "{model: @a, parameters: {weight: [{filter: mlp, value: 3}]}}"
FAR = "parameters: {weight: [{filter: attn, value: [1, 2]}, {value: 0.5}]}\n"


def changed_mean(tasks: list[np.ndarray], smallest: float) -> np.ndarray:
    """Return the mean of each element over the models that changed it."""
    counts = [np.abs(task) > smallest for task in tasks]
    return sum(task * count for task, count in zip(tasks, counts)) / np.maximum(sum(map(np.int64, counts)), 1)


def enlarged_mean(tasks: list[np.ndarray], smallest: float, r: float, alpha: float) -> np.ndarray:
    """Return the same, with what one model alone changed made larger."""
    changed = [np.abs(task) > smallest for task in tasks]
    alone = sum(map(np.int64, changed)) == 1
    ratios = [(each & ~alone).sum() / max((each & alone).sum(), 1) for each in changed]
    larger = [np.where(alone, 1 + r * min(ratio, alpha), 1) for ratio in ratios]
    return changed_mean([task * factor * each for task, factor, each in zip(tasks, larger, changed)], 0.0)


def t(name: str, depth: float) -> float:
    return gradient([0, 0.5, 1], depth) if "attn" in name else 0.25


CASES: dict[str, tuple[str, Merge]] = {
    "linear": ("merge_method: linear\n" + MODELS, lambda n, d, x: (0.7 * x["a"] + 0.5 * x["b"]) / 1.2),
    "linear, not normalised": (
        "merge_method: linear\nparameters: {normalize: false}\n" + MODELS,
        lambda n, d, x: 0.7 * x["a"] + 0.5 * x["b"],
    ),
    "linear, base an input like any": (
        "merge_method: linear\nbase_model: @sft\nparameters: {weight: 2.0}\n" + MODELS,
        lambda n, d, x: (0.7 * x["a"] + 0.5 * x["b"] + 2 * x["sft"]) / 3.2,
    ),
    "slerp": ("merge_method: slerp\nbase_model: @a\n" + PLAIN + T, lambda n, d, x: arc(x["a"], x["b"], t(n, d))),
    "slerp from the other end": (
        "merge_method: slerp\nbase_model: @b\n" + PLAIN + T,
        lambda n, d, x: arc(x["b"], x["a"], t(n, d)),
    ),
    "nuslerp": ("merge_method: nuslerp\n" + MODELS, lambda n, d, x: arc(x["a"], x["b"], 0.5 / 1.2)),
    "nuslerp, base": (
        "merge_method: nuslerp\nbase_model: @sft\n" + MODELS,
        lambda n, d, x: x["sft"] + arc(x["a"] - x["sft"], x["b"] - x["sft"], 0.5 / 1.2),
    ),
    "nuslerp, weights that cancel": (
        "merge_method: nuslerp\nmodels: [{model: @a, parameters: {weight: 1}}, {model: @b, parameters: {weight: -1}}]\n",
        lambda n, d, x: arc(x["a"], x["b"], 0.5),
    ),
    "task arithmetic": (
        "merge_method: task_arithmetic\nbase_model: @sft\n" + MODELS,
        lambda n, d, x: x["sft"] + 0.7 * (x["a"] - x["sft"]) + 0.5 * (x["b"] - x["sft"]),
    ),
    "task arithmetic, lambda by filter": (
        "merge_method: task_arithmetic\nbase_model: @sft\nparameters: {lambda: [{filter: mlp, value: [0.5, 2]}, {value: 1}]}\n"
        + MODELS,
        lambda n, d, x: (
            x["sft"] + (gradient([0.5, 2], d) if "mlp" in n else 1) * (0.7 * (x["a"] - x["sft"]) + 0.5 * (x["b"] - x["sft"]))
        ),
    ),
    "task arithmetic, normalised": (
        "merge_method: task_arithmetic\nbase_model: @sft\nparameters: {normalize: true, lambda: [0.5, 1.5]}\n" + MODELS,
        lambda n, d, x: x["sft"] + gradient([0.5, 1.5], d) * (0.7 * (x["a"] - x["sft"]) + 0.5 * (x["b"] - x["sft"])) / 1.2,
    ),
    "karcher": ("merge_method: karcher\n" + THREE, lambda n, d, x: karcher([x["a"], x["b"], x["c"]])),
    "multislerp": ("merge_method: multislerp\n" + MODELS, lambda n, d, x: directions([x["a"], x["b"]], [0.7, 0.5])),
    "multislerp, base, not normalised": (
        "merge_method: multislerp\nbase_model: @sft\nparameters: {normalize_weights: false}\n" + MODELS,
        lambda n, d, x: x["sft"] + 1.2 * directions([x["a"] - x["sft"], x["b"] - x["sft"]], [0.7, 0.5]),
    ),
    "nearswap": (
        "merge_method: nearswap\nbase_model: @a\nparameters: {t: [{filter: mlp, value: [0.1, 0.3]}, {value: 0.2}]}\n" + PLAIN,
        lambda n, d, x: (
            x["a"] + np.clip(x["b"] - x["a"], *((gradient([0.1, 0.3], d) if "mlp" in n else 0.2) * np.array([-1, 1])))
        ),
    ),
    "arcee_fusion": ("merge_method: arcee_fusion\nbase_model: @a\n" + PLAIN, lambda n, d, x: fused(x["a"], x["b"])),
    "model stock": (
        "merge_method: model_stock\nbase_model: @sft\n" + THREE,
        lambda n, d, x: model_stock(x["sft"], [x["a"], x["b"], x["c"]]),
    ),
    "ties": (
        "merge_method: ties\nbase_model: @sft\n" + TIES,
        lambda n, d, x: ties(
            x["sft"],
            [x["a"], x["b"]],
            [1.0, 0.5 if "mlp" in n else 0.2],
            [gradient([1, 0.7, 0.1], d), 0.33 if "attn" in n else 0.5],
        ),
    ),
    "dare linear that drops nothing": (
        "merge_method: dare_linear\nbase_model: @sft\nparameters: {lambda: 0.5}\n" + MODELS,
        lambda n, d, x: x["sft"] + 0.35 * (x["a"] - x["sft"]) + 0.25 * (x["b"] - x["sft"]),
    ),
    "dare ties that drops nothing": (
        "merge_method: dare_ties\nbase_model: @sft\nparameters: {normalize: true}\n" + MODELS,
        lambda n, d, x: ties(x["sft"], [x["a"], x["b"]], [0.7, 0.5], [1, 1]),
    ),
    "breadcrumbs": (
        "merge_method: breadcrumbs\nbase_model: @sft\nparameters: {density: 0.7, gamma: [{filter: mlp, value: 0.2}]}\n"
        + MODELS,
        lambda n, d, x: (
            x["sft"]
            + sum(w * breadcrumbs(x[m] - x["sft"], 0.7, 0.2 if "mlp" in n else 0.01) for m, w in (("a", 0.7), ("b", 0.5)))
        ),
    ),
    "breadcrumbs ties that leaves out nothing": (
        "merge_method: breadcrumbs_ties\nbase_model: @sft\nparameters: {gamma: 0, normalize: true}\n" + MODELS,
        lambda n, d, x: ties(x["sft"], [x["a"], x["b"]], [0.7, 0.5], [1, 1]),
    ),
    "della that drops nothing": (
        "merge_method: della\nbase_model: @sft\nparameters: {epsilon: 0}\n" + MODELS,
        lambda n, d, x: ties(x["sft"], [x["a"], x["b"]], [0.7, 0.5], [1, 1]),
    ),
    "della linear that drops nothing": (
        "merge_method: della_linear\nbase_model: @sft\nparameters: {epsilon: 0}\n" + MODELS,
        lambda n, d, x: x["sft"] + 0.7 * (x["a"] - x["sft"]) + 0.5 * (x["b"] - x["sft"]),
    ),
    "sce of one model": ("merge_method: sce\nbase_model: @sft\nmodels: [{model: @a}]\n", lambda n, d, x: x["a"]),
    "ram": (
        "merge_method: ram\nbase_model: @sft\nparameters: {epsilon: 0.1}\n" + PLAIN,
        lambda n, d, x: x["sft"] + changed_mean([x["a"] - x["sft"], x["b"] - x["sft"]], 0.1),
    ),
    "ramplus_tl": (
        "merge_method: ramplus_tl\nbase_model: @sft\nparameters: {epsilon: 0.1, r: 0.5, alpha: 0.3}\n" + PLAIN,
        lambda n, d, x: x["sft"] + enlarged_mean([x["a"] - x["sft"], x["b"] - x["sft"]], 0.1, 0.5, 0.3),
    ),
    "passthrough": ("merge_method: passthrough\nmodels: [{model: @a}]\n", lambda n, d, x: x["a"]),
    "passthrough, scale by filter": (
        "merge_method: passthrough\nmodels: [{model: @a, parameters: {scale: [{filter: mlp, value: 0.5}]}}]\n",
        lambda n, d, x: x["a"] * (0.5 if "mlp" in n else 1),
    ),
    "the nearest scope whose filter fits": (
        f"merge_method: linear\nmodels:\n  - {NEAR}\n  - model: @b\n{FAR}",
        lambda n, d, x: x["a"] * 3 / 3.5 + x["b"] * 0.5 / 3.5 if "mlp" in n else (x["a"] + x["b"]) / 2,
    ),
}


def write(family: Family, text: str, folder: Path) -> Path:
    path = folder / "config.yml"
    path.write_text(re.sub(r"@(\w+)", lambda match: str(family.init.parent / match[1]), text))
    return path


def run(recipe: MergeRecipe, output: Path) -> dict[str, np.ndarray]:
    section = {key: value for key, value in vars(recipe.merge).items() if value is not None}
    options = {key: value for key, value in vars(recipe.output).items() if value is not None}
    if slices := section.pop("slices", None):
        warmkit.merge_slices(read_slices(slices), output, **section, **options)
    else:
        merge(section.pop("models"), output, **section, **options)
    return {name: lazy.load().double().numpy() for name, lazy in warmkit.open_checkpoint(output).items()}


def check(found: dict[str, np.ndarray], merged: Merge) -> None:
    models = {name: weights(seed) for seed, name in enumerate(("sft", "a", "b", "c"))}
    for name, value in found.items():
        layer = re.search(r"layers\.(\d)", name)
        exact = merged(
            name, int(layer[1]) / 2 if layer else 0.0, {k: each[name].double().numpy() for k, each in models.items()}
        )
        np.testing.assert_allclose(value, exact, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_is_the_merge_that_it_describes(case: str, family: Family, tmp_path: Path) -> None:
    text, merged = CASES[case]
    path = write(family, text, tmp_path)
    assert is_mergekit(path)
    check(run(read_mergekit(path).recipe.content, tmp_path / "out"), merged)


@pytest.mark.parametrize("case", CASES)
def test_what_is_explained_is_a_recipe_of_warmkits_that_writes_the_same_bytes(
    case: str, family: Family, tmp_path: Path
) -> None:
    translation = read_mergekit(write(family, CASES[case][0], tmp_path))
    (tmp_path / "own.yaml").write_text(explain(translation.recipe.content))
    assert not is_mergekit(tmp_path / "own.yaml")
    own = read_recipe(tmp_path / "own.yaml", MergeRecipe).content
    run(translation.recipe.content, tmp_path / "theirs")
    run(own, tmp_path / "own")
    first, second = (tmp_path / name / "model.safetensors" for name in ("theirs", "own"))
    assert first.read_bytes() == second.read_bytes()


def test_every_method_has_a_case() -> None:
    assert {yaml.safe_load(text.replace("@", ""))["merge_method"] for text, _ in CASES.values()} == KNOWN.keys()


SLICES = """\
slices:
  - sources:
      - {model: @a, layer_range: [0, 2]}
      - {model: @b, layer_range: [1, 3], parameters: {weight: [0.2, 0.6]}}
    parameters: {weight: 1.0}
  - sources: [{model: @c, layer_range: [2, 3]}]
merge_method: linear
parameters: {weight: 5, normalize: true}
"""


def test_slices_are_merged_layer_by_layer_with_gradients_over_each(family: Family, tmp_path: Path) -> None:
    recipe = read_mergekit(write(family, SLICES, tmp_path)).recipe.content
    found, a, b, c = run(recipe, tmp_path / "out"), *(weights(seed) for seed in (1, 2, 3))
    for layer, share in enumerate((0.2, 0.6)):
        exact = (a[f"model.layers.{layer}.mlp.weight"] + share * b[f"model.layers.{layer + 1}.mlp.weight"]) / (1 + share)
        np.testing.assert_allclose(found[f"model.layers.{layer}.mlp.weight"], exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["model.layers.2.mlp.weight"], c["model.layers.2.mlp.weight"])
    np.testing.assert_array_equal(found["lm_head.weight"], c["lm_head.weight"])
    assert len(found) == 12


def test_a_stack_of_slices_copies_layers_bit_by_bit(family: Family, tmp_path: Path) -> None:
    text = "merge_method: passthrough\nslices:\n  - sources: [{model: @a, layer_range: [0, 3]}]\n"
    text += "  - sources: [{model: @b, layer_range: [1, 3]}]\n"
    found = run(read_mergekit(write(family, text, tmp_path)).recipe.content, tmp_path / "out")
    np.testing.assert_array_equal(found["model.layers.4.attn.weight"], weights(2)["model.layers.2.attn.weight"])
    np.testing.assert_array_equal(found["model.layers.2.attn.weight"], weights(1)["model.layers.2.attn.weight"])


def translated(family: Family, text: str, folder: Path) -> Translation:
    return read_mergekit(write(family, text, folder))


LINEAR = "merge_method: linear\n" + MODELS
SLICED = "merge_method: passthrough\nslices:\n  - sources: [{model: @a, layer_range: [0, 3]}]\n"


@pytest.mark.parametrize(("source", "mode"), [("union", "union"), ("base", "init")])
def test_vocabularies_that_differ_meet_as_the_tokenizer_source_says(source: str, mode: str, tmp_path: Path) -> None:
    init, a, b = make(tmp_path / "init", [], 0), make(tmp_path / "a", ["<x>"], 1), make(tmp_path / "b", ["<y>", "<x>"], 2)
    recipe = tmp_path / "config.yml"
    text = f"merge_method: task_arithmetic\nbase_model: {init}\nparameters: {{weight: 0.5}}\n"
    text += f"models: [{{model: {a}}}, {{model: {b}}}]\n"
    recipe.write_text(f"{text}tokenizer_source: {source}\n")
    content = read_mergekit(recipe).recipe.content
    assert content.merge.vocabulary == mode
    found = run(content, tmp_path / "out")
    how = {"init": init, "method": "task-arithmetic", "coefficients": [0.5, 0.5]}
    warmkit.merge([a, b], tmp_path / "ours", vocabulary=mode, **how)
    expected = warmkit.open_checkpoint(tmp_path / "ours")
    assert found.keys() == set(expected)
    assert all(np.array_equal(found[name], expected[name].load().numpy()) for name in found)
    added = [each["content"] for each in json.loads((tmp_path / "out" / "tokenizer.json").read_text())["added_tokens"]]
    assert [token for token in added if token in ("<x>", "<y>")] == (["<x>", "<y>"] if mode == "union" else [])


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (LINEAR + "dtype: bfloat16\n", "dtype: bfloat16 is the type of the result; sums run in float32 or wider"),
        ("merge_method: slerp\nbase_model: @a\n" + PLAIN + T, "the arc is followed at every angle"),
        (LINEAR + "parameters: {density: 0.5}\n", "parameters.density: linear does not use it"),
        (LINEAR + "parameters: {weight: [{filter: 'l*r', value: 1}]}\n", ""),
        (LINEAR.replace("0.7", "[{filter: 'l*r', value: 1}, {value: 2}]"), "no tensor is called 'l*r'"),
        (SLICED + "tokenizer_source: union\n", "it refuses different ones"),
        (
            "merge_method: task_arithmetic\nbase_model: @sft\nparameters: {int8_mask: true}\n" + MODELS,
            "int8_mask: has no effect",
        ),
        ("merge_method: karcher\nparameters: {tol: 1e-9}\n" + PLAIN, "tol: has no effect"),
    ],
)
def test_differences_on_purpose_are_noted(text: str, note: str, family: Family, tmp_path: Path) -> None:
    notes = translated(family, text, tmp_path).notes
    assert any(note in each for each in notes) if note else not notes


def refusal(key: str, value: Any) -> str:
    return LINEAR + f"{key}: {value}\n"


REFUSED: dict[str, tuple[str, str]] = {
    "unknown method": (
        "merge_method: liner\n" + MODELS,
        ":1: merge_method: mergekit has no method 'liner'; did you mean 'linear'?",
    ),
    "three for nearswap": (
        "merge_method: nearswap\nbase_model: @a\nparameters: {t: 1}\n" + THREE,
        ":4: nearswap takes one model beside base_model, found 3 in all",
    ),
    "nearswap without t": (
        "merge_method: nearswap\nbase_model: @a\n" + PLAIN,
        ":1: nearswap needs 't'; add it to parameters of",
    ),
    "three for arcee_fusion": (
        "merge_method: arcee_fusion\nbase_model: @a\n" + THREE,
        ":3: arcee_fusion takes one model beside base_model, found 3 in all",
    ),
    "multislerp of weights, not normalised": (
        "merge_method: multislerp\nparameters: {normalize_weights: false}\n" + MODELS,
        ":2: normalize_weights false needs a base_model",
    ),
    "unknown key": (refusal("paramters", "{weight: 1}"), ":5: unknown key 'paramters'; did you mean 'parameters'?"),
    "unknown parameter": (
        LINEAR.replace("weight: 0.5", "wieght: 0.5"),
        ":4: unknown parameter 'wieght' of linear; did you mean",
    ),
    "old name of filter": (
        LINEAR.replace("0.7", "[{pattern: mlp, value: 1}]"),
        ":3: models[0].parameters.weight: unknown key 'pattern'",
    ),
    "no weight": ("merge_method: linear\n" + PLAIN, ":1: linear needs 'weight'; add it to parameters of each model"),
    "no base": ("merge_method: slerp\n" + PLAIN + T, ":1: slerp needs a base_model"),
    "three for slerp": ("merge_method: slerp\nbase_model: @a\n" + THREE + T, ":3: slerp takes two models"),
    "t past the end": (
        "merge_method: slerp\nbase_model: @a\nparameters: {t: 1.5}\n" + PLAIN,
        ":3: t must be between 0 and 1",
    ),
    "rows": (
        "merge_method: nuslerp\nparameters: {nuslerp_flatten: false}\n" + MODELS,
        ":2: nuslerp_flatten false (an arc for every row or column) is not in warmkit",
    ),
    "filter-wise": (
        "merge_method: model_stock\nbase_model: @sft\nparameters: {filter_wise: true}\n" + THREE,
        ":3: filter_wise (an angle for every row) is not in warmkit",
    ),
    "rescale": (
        "merge_method: ties\nbase_model: @sft\nparameters: {rescale: true}\n" + MODELS,
        ":3: rescale true is not in warmkit's ties",
    ),
    "dare, normalised": (
        "merge_method: dare_linear\nbase_model: @sft\nparameters: {normalize: true}\n" + MODELS,
        ":3: normalize true is not in warmkit's dare_linear",
    ),
    "ties of slices": (
        SLICES.replace("linear", "ties")
        .replace("@a", "@sft")
        .replace("[{model: @c,", "[{model: @sft, layer_range: [0, 1]}, {model: @c,")
        + "base_model: @sft\n",
        ":2: ties of slices is not in warmkit; give models",
    ),
    "flag by filter": (
        refusal("parameters", "{normalize: [true, false]}"),
        ":5: normalize must be true or false for all tensors",
    ),
    "text for a number": (LINEAR.replace("0.5", "much"), ":4: models[1].parameters.weight must be a number"),
    "twice": (LINEAR.replace("@b", "@a"), "is there twice, which mergekit refuses"),
    "two of passthrough": ("merge_method: passthrough\n" + PLAIN, ":2: passthrough copies one model (in every slice), found 2"),
    "neither": ("merge_method: linear\n", ":1: missing key 'models' or 'slices'"),
    "both": (SLICES + PLAIN, "expected models or slices, and not both"),
    "range": (SLICES.replace("[2, 3]", "[2, 3, 4]"), ":6: slices[1].sources[0].layer_range: expected [first, end]"),
    "base not in a slice": (
        SLICES.replace("linear", "task_arithmetic") + "base_model: @sft\n",
        ":2: task_arithmetic needs the base_model",
    ),
    "base of a slice": (
        "merge_method: linear\nbase_model: @a\nslices:\n  - base_model: @b\n    sources: [{model: @a, layer_range: [0, 3]}]\n",
        ":4: a slice with a base_model of its own",
    ),
    "dtype": (refusal("dtype", "bf17"), ":5: dtype: unknown dtype 'bf17'"),
    "tokens of slices": (
        SLICED + "tokenizer: {source: union, tokens: {x: {source: a}}}\n",
        ":4: tokenizer.tokens of slices is not in warmkit",
    ),
    "padding of slices": (SLICED + "tokenizer: {pad_to_multiple_of: 8}\n", ":4: tokenizer.pad_to_multiple_of of slices"),
    "tokens of another tokenizer": (
        refusal("tokenizer", "{source: x/y, tokens: {x: {source: a}}}"),
        ":5: tokenizer.tokens beside another model's tokenizer; make that the base_model",
    ),
    "padding": (refusal("tokenizer", "{pad_to_multiple_of: 0.5}"), ":5: expected a whole number at least 1, found 0.5"),
    "key of a tokenizer": (refusal("tokenizer", "{pad_to_multiple: 8}"), ":5: tokenizer: unknown key 'pad_to_multiple'; did"),
    "token without a source": (refusal("tokenizer", "{tokens: {x: {force: true}}}"), ":5: tokenizer.tokens.x: expected source"),
    "token of two ids": (
        refusal("tokenizer", "{tokens: {x: {source: {kind: model_token, model: a, token: s, token_id: 3}}}}"),
        ":5: tokenizer.tokens.x: expected kind zero, or model_token",
    ),
    "base tokenizer": (refusal("tokenizer_source", "base"), ":5: tokenizer_source: base needs a base_model"),
    "template by name": (refusal("chat_template", "llama3"), ":5: the template 'llama3' comes with mergekit"),
    "architecture": (
        LINEAR.replace("model: @a", "model: {model: @a, override_architecture: X}"),
        ":3: override_architecture: warmkit goes by the names",
    ),
    "modules": (refusal("modules", "{text_decoder: {}}"), ":5: modules, models of several parts"),
    "mega": (LINEAR + "out_path: x\n---\n" + LINEAR, ":5: of mergekit-mega, which mergekit no longer has"),
    "experts": ("base_model: @a\ngate_mode: random\nexperts: []\n", ":3: a recipe of mergekit-moe"),
    "genome": ("genome: {}\ntasks: []\n", ":1: a recipe of mergekit-evolve"),
    "metrics": ("metric_method: all\n" + PLAIN, ":1: unknown key 'metric_method'"),
    "lora": (LINEAR.replace("model: @a", "model: @a, lora: x"), ":3: unknown key 'models[0].lora'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_warmkit_lacks_is_refused_by_name_and_line(case: str, family: Family, tmp_path: Path) -> None:
    text, message = REFUSED[case]
    path = write(family, text, tmp_path)
    with pytest.raises(RecipeError) as caught:
        _ = is_mergekit(path) and read_mergekit(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_references_with_revisions_and_adapters_are_handed_on(family: Family, tmp_path: Path) -> None:
    text = "merge_method: linear\nmodels:\n  - {model: {model: {path: o/n, revision: v1}, lora: x}, parameters: {weight: 1}}\n"
    assert translated(family, text, tmp_path).recipe.content.merge.models == ["o/n@v1+x"]


def test_warmkits_own_recipes_are_not_taken_for_mergekits() -> None:
    recipes = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
    assert recipes
    assert not any(map(is_mergekit, recipes))
