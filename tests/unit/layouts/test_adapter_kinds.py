"""What peft writes, of every kind, stands for the weights that peft itself merges, in float64."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

import warmkit
from warmkit.errors import FormatError, MismatchError, UnsupportedError, WarmkitError
from warmkit.formats import held
from warmkit.formats.dtypes import DTYPES
from warmkit.formats.held import read_whole
from warmkit.layouts import adapted, adapter_rotations
from warmkit.layouts.adapter_config import KINDS, NOT_DENSE
from warmkit.layouts.adapter_rotations import series, skew_matrices
from warmkit.sources.files import Files

DATA = Path(__file__).parents[2] / "data" / "adapters"
CASES = sorted(path.parent.name for path in DATA.glob("*/dense.safetensors"))
SQUARE_ALONE = ("experts-square", "experts-square-0.19.0")
"""`down_proj` of GPT-OSS alone: with transformers 4 the same peft writes the same shapes and config, and means them turned."""


def numbers(source: Path | str) -> dict[str, Any]:
    with Files() as files:
        found = warmkit.open_checkpoint(str(source)).entries
        return {name: read_whole(files, entry, DTYPES["F64"]) for name, entry in found.items()}


def base_of(case: str) -> Path:
    return DATA / "bases" / Path(json.loads((DATA / case / "adapter_config.json").read_text())["base_model_name_or_path"]).name


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_stands_for_the_weights_that_peft_merges(case: str) -> None:
    expected = {**numbers(base_of(case)), **load_file(DATA / case / "dense.safetensors")}
    if case in SQUARE_ALONE:
        message = refused(str(DATA / case), UnsupportedError)
        assert "with transformers 4 is the other way round than with 5" in message
        return
    found = numbers(DATA / case)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-13, atol=1e-13, err_msg=name)


def copied(case: str, folder: Path, tensors: Callable[[dict[str, Any]], object] = lambda _: None, **config: Any) -> str:
    """Return a case on its base, in a copy with its tensors or its config changed."""
    shutil.copytree(DATA / case, folder)
    file = folder / "adapter_config.json"
    said = {**json.loads(file.read_text()), **config}
    file.write_text(json.dumps({key: value for key, value in said.items() if value != "gone"}))
    found = load_file(folder / "adapter_model.safetensors")
    tensors(found)
    save_file(found, folder / "adapter_model.safetensors")
    return f"{base_of(case)}+{folder}"


def refused(source: str, kind: type[WarmkitError]) -> str:
    with pytest.raises(kind) as caught:
        warmkit.open_checkpoint(source)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# ---- experts --------------------------------------------------------------------------------------------------------

EXPERTS = "base_model.model.model.layers.0.mlp.experts"


def test_experts_one_by_one_and_fused_hold_the_same(tmp_path: Path) -> None:
    """One adapter on two bases with the same weights: the expert's difference lands on the same numbers."""
    one = numbers(f"{DATA / 'bases' / 'mixtral'}+{DATA / 'experts-one-by-one'}")
    base = tmp_path / "base"
    shutil.copytree(DATA / "bases" / "mixtral", base)
    tensors = load_file(base / "model.safetensors")
    save_file(fused(tensors), base / "model.safetensors")
    together = numbers(f"{base}+{DATA / 'experts-one-by-one'}")
    for name, value in fused(one).items():
        np.testing.assert_array_equal(together[name], value, err_msg=name)


def fused(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return experts of Mixtral as transformers has them in memory, written down here once more."""
    rest = {name: value for name, value in tensors.items() if ".experts." not in name}
    for layer in range(2):
        place = f"model.layers.{layer}.block_sparse_moe.experts"
        w1, w2, w3 = (np.stack([tensors[f"{place}.{e}.w{n}.weight"] for e in range(3)]) for n in (1, 2, 3))
        rest |= {f"model.layers.{layer}.mlp.experts.gate_up_proj": np.concatenate([w1, w3], 1)}
        rest |= {f"model.layers.{layer}.mlp.experts.down_proj": w2}
    return rest


def test_experts_that_lie_turned_or_under_other_names_take_the_same(tmp_path: Path) -> None:
    """Qwen3-VL stores [E, in, out] of what is [E, out, in] in memory; Granite and Aria have other names on disk."""
    case, expected = "experts-fused", numbers(DATA / "experts-fused")

    def turned(found: dict[str, Any]) -> dict[str, Any]:
        return {name: each.transpose(0, 2, 1).copy() if each.ndim == 3 else each for name, each in found.items()}

    def granite(found: dict[str, Any]) -> dict[str, Any]:
        names = {"mlp.experts.gate_up_proj": "block_sparse_moe.input_linear.weight"}
        names |= {"mlp.experts.down_proj": "block_sparse_moe.output_linear.weight"}
        return {
            next((name.replace(*pair) for pair in names.items() if pair[0] in name), name): each for name, each in found.items()
        }

    def aria(found: dict[str, Any]) -> dict[str, Any]:
        return {
            name.replace("gate_up_proj", "fc1.weight").replace("down_proj", "fc2.weight"): each for name, each in found.items()
        }

    for change in (turned, granite, aria):
        base = tmp_path / change.__name__
        shutil.copytree(base_of(case), base)
        save_file(change(load_file(base / "model.safetensors")), base / "model.safetensors")
        found = numbers(f"{base}+{DATA / case}")
        for name, value in change(expected).items():
            np.testing.assert_allclose(found[name], value, rtol=1e-13, atol=1e-13, err_msg=name)


def test_unsloths_packing_is_read_where_it_is_said_and_refused_where_it_is_not(tmp_path: Path) -> None:
    def packed(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.startswith(EXPERTS) and name.endswith("lora_B.weight")]:
            out = tensors[name].shape[0]
            tensors[name] = tensors[name].reshape(out, -1, 3).transpose(0, 2, 1).reshape(out, -1).copy()

    case, expected = "experts-transposed", numbers(DATA / "experts-transposed")
    unsloth = {"auto_mapping": {"base_model_class": "GptOssForCausalLM", "unsloth_fixed": True}}
    detail = {"parameters": {"down_proj": {"lora_B_layout": "grouped_by_expert", "num_experts": 3}}}
    said = {"lora_B_layout": "grouped_by_expert", "unsloth_fused_expert_lora": detail, **unsloth}
    for folder, change, config in (
        ("grouped", packed, said),
        ("rank", lambda _: None, {**unsloth, "lora_B_layout": "rank_major"}),
    ):
        found = numbers(copied(case, tmp_path / folder, change, **config))
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    message = refused(copied(case, tmp_path / "unsaid", packed, **unsloth), UnsupportedError)
    assert "unsloth packed in two ways and does not say how: write 'lora_B_layout': 'grouped_by_expert'" in message
    assert "packed in two ways" in refused(
        copied(case, tmp_path / "name", base_model_name_or_path="unsloth/x"), UnsupportedError
    )
    assert "found sideways" in refused(copied(case, tmp_path / "other", lora_B_layout="sideways"), UnsupportedError)
    both = copied(case, tmp_path / "both", lora_B_layout="rank_major", unsloth_fused_expert_lora=detail)
    assert "found grouped_by_expert, rank_major" in refused(both, UnsupportedError)


def test_experts_whose_base_is_quantised(tmp_path: Path) -> None:
    """GPT-OSS in MXFP4; `gate_up_proj` is square there, and `down_proj` tells how it lies."""
    base, draw, place = DATA.parent / "quantised" / "mxfp4", np.random.default_rng(1), "model.layers.0.mlp.experts"
    before, factors, expected = numbers(base), dict[str, Any](), dict[str, Any]()
    for parameter, end in (("gate_up_proj", ".base_layer"), ("down_proj", "")):
        _, into, out = before[f"{place}.{parameter}"].shape
        a, b = draw.standard_normal((6, into)), draw.standard_normal((out, 6))
        factors |= {f"base_model.model.{place}{end}.lora_{side}.weight": each for side, each in (("A", a), ("B", b))}
        delta = np.einsum("ore,eri->eio", b.reshape(out, 2, 3), a.reshape(3, 2, into))
        expected[f"{place}.{parameter}"] = before[f"{place}.{parameter}"] + 1.5 * delta
    source = copied(
        "experts-transposed", tmp_path / "adapter", lambda found: (found.clear(), found.update(factors)), r=2, lora_alpha=3
    )
    found = numbers(f"{base}+{source.rpartition('+')[2]}")
    for name, value in {**before, **expected}.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_factors_of_peft_before_0_19_are_turned(tmp_path: Path) -> None:
    """They had in and out the other way round: the shape tells, and the version where an expert is square."""

    def turned(tensors: dict[str, Any]) -> None:
        for end in (".base_layer", ""):
            a, b = (f"{EXPERTS}{end}.lora_{side}.weight" for side in "AB")
            rank = tensors[a].shape[0] // 3
            rows = tensors[a].reshape(3, rank, -1).transpose(2, 1, 0).reshape(tensors[a].shape[1], -1)  # [in, r E]
            columns = tensors[b].reshape(-1, rank, 3).transpose(2, 1, 0).reshape(-1, tensors[b].shape[0])  # [E r, out]
            tensors[a], tensors[b] = columns.copy(), rows.copy()

    found = numbers(copied("experts-patterns", tmp_path / "a", turned, peft_version="0.18.1"))
    for name, value in numbers(DATA / "experts-patterns").items():
        np.testing.assert_allclose(found[name], value, rtol=1e-14, atol=1e-14, err_msg=name)
    case, shape = "experts-square", (8, 3 * 3)
    known = [numbers(copied(case, tmp_path / version, peft_version=version)) for version in ("0.18.1", "gone")]
    for name, value in load_file(DATA / case / "dense.safetensors").items():
        for one in known:
            np.testing.assert_allclose(one[name], value, rtol=1e-13, atol=1e-13, err_msg=name)
    assert load_file(DATA / case / "adapter_model.safetensors")[f"{EXPERTS}.lora_B.weight"].shape == shape
    base = tmp_path / "base"
    shutil.copytree(base_of(case), base)
    (base / "config.json").write_text('{"model_type": "of_remote_code"}')
    assert "is square, and neither the model_type 'of_remote_code'" in refused(f"{base}+{DATA / case}", UnsupportedError)


@pytest.mark.parametrize("case", ["experts-one-by-one", "experts-fused", "tokens", "ia3", "resized"])
@pytest.mark.parametrize(
    ("there", "here"), [("model.", ""), ("model.", "language_model.model."), ("model.", "model.language_model.")]
)
def test_a_base_inside_another_or_without_its_prefix_takes_the_same(case: str, there: str, here: str, tmp_path: Path) -> None:
    """An adapter of a language model on a base that also sees, or that was saved without its head's prefix."""
    base, expected = tmp_path / "base", numbers(DATA / case)
    shutil.copytree(base_of(case), base)
    tensors = load_file(base / "model.safetensors")
    vision = {"vision_tower.encoder.layers.0.self_attn.q_proj.weight": np.ones((8, 8))} if here else {}

    def renamed(names: dict[str, Any]) -> dict[str, Any]:
        return {(here + name.removeprefix(there) if name.startswith(there) else name): value for name, value in names.items()}

    save_file(renamed(tensors) | vision, base / "model.safetensors")
    found = numbers(f"{base}+{DATA / case}")
    for name, value in (renamed(expected) | vision).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def without(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if any(each in name for each in names)]:
            del tensors[name]

    return change


def test_experts_that_are_half_there_are_refused_in_one_line(tmp_path: Path) -> None:
    case = "experts-one-by-one"
    half = copied(case, tmp_path / "layer", without("layers.1.mlp.experts"))
    assert "no factors for 'model.layers.1.block_sparse_moe.experts'" in refused(half, MismatchError)
    inner = copied(case, tmp_path / "inner", without("experts.base_layer"))
    assert "has the factors of 1 parameters, adapter_config.json targets 2" in refused(inner, FormatError)
    lost = copied(case, tmp_path / "lost", without("experts"))
    assert "has no factors for 'experts.down_proj'" in refused(lost, FormatError)
    router = copied(case, tmp_path / "router", target_parameters=["gate_up_proj", "down_proj", "gate.weight"])
    assert "has no factors for 'gate.weight'" in refused(router, FormatError)
    more = copied(case, tmp_path / "more", target_parameters=["gate_up_proj", "down_proj", "vision.experts.down_proj"])
    assert warmkit.open_checkpoint(more)  # what the base lacks, peft passes over
    some = copied(case, tmp_path / "some", without("layers.1.mlp"), target_parameters=[f"0.mlp.experts.{x}" for x in ORDER])
    assert warmkit.open_checkpoint(some)
    odd = copied(case, tmp_path / "odd", target_parameters=["experts.first", "experts.second"])
    assert "the order of 'first' among them is not known" in refused(odd, UnsupportedError)
    lone = copied(case, tmp_path / "lone", without("lora_B"))
    assert "has lora_A and no lora_B" in refused(lone, FormatError)


ORDER = ("gate_up_proj", "down_proj")


def test_modules_that_are_half_there_are_noted(tmp_path: Path) -> None:
    case, words = "experts-one-by-one", "has no factors for 'model.layers.1.self_attn.q_proj.weight', which its target_modules"
    half = warmkit.open_checkpoint(copied(case, tmp_path / "half", without("layers.1.self_attn")))
    assert any(words in note for note in half.notes)
    some = copied(case, tmp_path / "some", without("layers.1.self_attn"), layers_to_transform=[0])
    for each in (some, str(DATA / case)):
        assert not any("has no factors" in note for note in warmkit.open_checkpoint(each).notes)


def test_experts_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    case = "experts-one-by-one"
    rank = copied(case, tmp_path / "rank", r=3)
    assert "has factors [6, 8] and [12, 6], adapter_config.json says rank 3 for each of 3 experts" in refused(rank, FormatError)
    base = tmp_path / "base"
    shutil.copytree(DATA / "bases" / "mixtral", base)
    whole = load_file(base / "model.safetensors")
    save_file({name: each for name, each in whole.items() if "experts.2" not in name}, base / "model.safetensors")
    assert "says rank 2 for each of 2 experts" in refused(f"{base}+{DATA / case}", FormatError)
    save_file({name.replace("experts.2", "experts.5"): each for name, each in whole.items()}, base / "model.safetensors")
    assert "are not numbered from 0 on" in refused(f"{base}+{DATA / case}", MismatchError)
    save_file({name: each[..., :7] if "w1" in name else each for name, each in whole.items()}, base / "model.safetensors")
    assert "differ in shape" in refused(f"{base}+{DATA / case}", MismatchError)
    save_file({name: each for name, each in whole.items() if "w2" not in name}, base / "model.safetensors")
    assert "holds neither as one tensor nor as matrices of each expert" in refused(f"{base}+{DATA / case}", MismatchError)
    wide = {name: np.zeros((each.shape[0], 9)) if ".w" in name else each for name, each in whole.items()}
    save_file(wide, base / "model.safetensors")
    assert "there an expert is [12, 9]" in refused(f"{base}+{DATA / case}", MismatchError)
    assert "there are no such experts" in refused(f"{DATA / 'bases' / 'llama'}+{DATA / 'experts-gate-up'}", MismatchError)


def test_adapters_of_single_experts_are_refused_on_a_fused_base(tmp_path: Path) -> None:
    """As transformers 4 had them; peft turns them into factors of whole parameters when it loads them on transformers 5."""
    name = "base_model.model.model.layers.0.mlp.experts.0.gate_proj"
    parts = {f"{name}.lora_A.weight": np.ones((2, 8)), f"{name}.lora_B.weight": np.ones((6, 2))}
    one = copied("experts-fused", tmp_path / "one", lambda found: (found.clear(), found.update(parts)), target_parameters=None)
    assert "it adapts 'model.layers.0.mlp.experts.0.gate_proj.weight', which is not there" in refused(one, MismatchError)


def test_layers_behind_the_model_need_no_factors(tmp_path: Path) -> None:
    """DeepSeek's and GLM's files hold one layer more than the model: it predicts further tokens, and peft never sees it."""
    base = tmp_path / "base"
    shutil.copytree(DATA / "bases" / "mixtral", base)
    tensors = load_file(base / "model.safetensors")
    more = {name.replace("layers.1", "layers.2"): value for name, value in tensors.items() if "layers.1." in name}
    save_file({**tensors, **more}, base / "model.safetensors")
    assert len(warmkit.open_checkpoint(f"{base}+{DATA / 'experts-one-by-one'}")) == len(tensors) + len(more)


def test_a_stack_reads_the_same_in_any_pieces_and_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, name = "experts-fused", "model.layers.1.mlp.experts.gate_up_proj"
    whole = numbers(DATA / case)[name].ravel()
    entry = warmkit.open_checkpoint(DATA / case).entries[name]
    monkeypatch.setattr(adapted, "PIECE", 37)
    monkeypatch.setattr(held, "_scratch", threading.local())
    with Files() as files:
        for start, count in ((0, 1), (5, 250), (95, 3), (whole.size - 7, 7), (0, whole.size), (9, 0)):
            part = np.empty(count)
            entry.read(files, start, part.data.cast("B"))
            np.testing.assert_array_equal(part, whole[start : start + count])
    warmkit.merge([DATA / case, DATA / case], tmp_path / "out", init=base_of(case), method="slerp", eta=2.0, threads=2)
    found, base = load_file(tmp_path / "out" / "model.safetensors")[name].ravel(), numbers(base_of(case))[name].ravel()
    np.testing.assert_allclose(found, base + 2 * (whole - base), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["lerp", "slerp"])
@pytest.mark.parametrize("case", ["experts-fused", "experts-transposed"])
def test_stacks_of_bfloat16_are_rounded_once(case: str, method: str, tmp_path: Path) -> None:
    """An adapter beside a dense model, and two adapters: the products of every expert are added on the way."""
    narrow: dict[str, Any] = {}
    for name, more in (("base", 0.0), ("dense", 0.01)):
        shutil.copytree(base_of(case), tmp_path / name)
        wide = load_file(tmp_path / name / "model.safetensors")
        tensors = {key: torch.from_numpy(value + more).bfloat16() for key, value in wide.items()}
        save_torch_file(tensors, tmp_path / name / "model.safetensors")
        narrow[name] = numbers(tmp_path / name)
    copied(case, tmp_path / "other", lambda found: found.update({k: v[::-1].copy() for k, v in found.items()}))
    wide, adapters = numbers(base_of(case)), (DATA / case, tmp_path / "other")
    exact = [{k: narrow["base"][k] + v - wide[k] for k, v in numbers(f"{base_of(case)}+{each}").items()} for each in adapters]
    sources = [f"{tmp_path / 'base'}+{each}" for each in adapters]
    for number, (models, rows) in enumerate(
        (([sources[0], tmp_path / "dense"], [exact[0], narrow["dense"]]), (sources, exact)),
    ):
        made = warmkit.merge(models, tmp_path / f"{number}", init=tmp_path / "base", method=method, granularity="tensor")
        found = numbers(made.path)
        for group in made.groups:
            used = [narrow["base"], *rows][-len(group.coefficients) :]
            terms = [c * row[group.name] for c, row in zip(group.coefficients, used)]
            total = sum(terms)
            step = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(total), 2.0**-126))) - 7)
            bound = step / 2 + 2.0**-21 * sum(map(np.abs, terms))
            assert (np.abs(found[group.name] - total) <= bound).all(), group.name


def test_products_of_stacks_are_those_of_the_dense_differences(tmp_path: Path) -> None:
    """From the factors of every expert, without a pass over the weights."""
    other = copied(
        "experts-fused", tmp_path / "other", lambda found: found.update({k: v[::-1].copy() for k, v in found.items()})
    )
    init, models = base_of("experts-fused"), [str(DATA / "experts-fused"), other]
    dense = [str(warmkit.soup([each], tmp_path / f"dense-{number}").path) for number, each in enumerate(models)]
    known, measured = (
        warmkit.merge(each, tmp_path / name, init=init, method="slerp") for each, name in ((models, "a"), (dense, "b"))
    )
    assert known.bytes_read < measured.bytes_read
    for one, two in zip(known.groups, measured.groups):
        assert one.norms is not None
        assert one.norms == pytest.approx(two.norms, rel=1e-6)
        np.testing.assert_allclose(np.array(one.angles, dtype=float), np.array(two.angles, dtype=float), atol=1e-3)


# ---- tokens and vocabularies ----------------------------------------------------------------------------------------


def test_a_resized_vocabulary_comes_with_its_config() -> None:
    for case, tied in (("resized", False), ("resized-tied", True)):
        found = warmkit.open_checkpoint(DATA / case)
        assert (found.config["vocab_size"], found.config["tie_word_embeddings"]) == (14, tied)
        assert any("12 tokens; read with the 14 of" in note for note in found.notes)


def test_tokens_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    count = copied("tokens", tmp_path / "count", trainable_token_indices=[3, 11])
    assert "brings rows [3, 8] of an embedding, adapter_config.json names 2 tokens" in refused(count, FormatError)
    twice = copied("tokens", tmp_path / "twice", trainable_token_indices=[3, 11, 3])
    assert "names 2 tokens" in refused(twice, FormatError)
    beyond = copied("tokens", tmp_path / "beyond", trainable_token_indices=[3, 12, 0])
    assert "it replaces rows up to 12 of 'model.embed_tokens.weight' by [3, 8], there is [12, 8]" in refused(
        beyond, MismatchError
    )
    other = copied("tokens", tmp_path / "other", trainable_token_indices={"lm_head": [3, 11, 0]})
    assert "names 0 tokens" in refused(other, FormatError)
    none = copied("tokens", tmp_path / "none", without("trainable_tokens"))
    assert "has no rows for trainable_token_indices" in refused(none, FormatError)
    alone = copied("resized", tmp_path / "alone", without("lm_head"))
    assert "if its vocabulary was resized, resize the base first" in refused(alone, MismatchError)


# ---- other kinds ----------------------------------------------------------------------------------------------------


def test_an_initialisation_that_changed_the_base_is_refused_with_the_way_out(tmp_path: Path) -> None:
    assert "path_initial_model_for_weight_conversion" in refused(str(DATA / "pissa"), UnsupportedError)
    for name in ("olora", "corda", "loftq", "lora_ga", "pissa_niter_4"):
        source = copied("eva", tmp_path / name, init_lora_weights=name)
        assert f"init_lora_weights {name!r} changed the base as well" in refused(source, UnsupportedError)


def test_every_kind_of_peft_is_read_or_refused_by_name(tmp_path: Path) -> None:
    kinds = sorted(json.loads((DATA / "kinds.json").read_text()))
    assert len(kinds) == 45
    for kind in set(kinds) - KINDS.keys():
        message = refused(copied("eva", tmp_path / kind, peft_type=kind), UnsupportedError)
        way = "it stands for no dense weights" if kind in NOT_DENSE else "merge it with peft (merge_and_unload)"
        assert f"kind {kind!r}, which is not read" in message
        assert way in message
    page = (Path(__file__).parents[3] / "docs" / "adapters.md").read_text()
    assert all(f"`{kind}`" in page for kind in kinds)


@pytest.mark.parametrize(
    ("case", "config", "words"),
    [
        ("oft-shared", {"peft_version": "0.17.1"}, "the series of peft before 0.18.0"),
        ("oft", {"use_cayley_neumann": "gone"}, "a config without use_cayley_neumann"),
    ],
)
def test_rotations_whose_series_is_not_known_are_refused(case: str, config: dict[str, Any], words: str, tmp_path: Path) -> None:
    message = refused(copied(case, tmp_path / "adapter", **config), UnsupportedError)
    assert words in message
    assert "merge it with peft (merge_and_unload)" in message


def test_butterflies_and_rotations_of_older_files_are_refused(tmp_path: Path) -> None:
    def two(found: dict[str, Any]) -> None:
        found.update({name: np.concatenate([each, each]) for name, each in found.items() if "boft_R" in name})

    assert "with butterflies" in refused(copied("boft", tmp_path / "boft", two), UnsupportedError)
    old = copied("oft", tmp_path / "oft", lambda found: found.update({k: np.zeros((2, 4, 4)) for k in found}))
    assert "as peft had it before 0.15" in refused(old, UnsupportedError)


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 5, 7])
def test_the_series_is_cut_where_peft_cuts_it(terms: int) -> None:
    from peft.tuners.oft.layer import OFTRotationModule

    module = OFTRotationModule(2, 6, 4, 8, num_cayley_neumann_terms=terms).double()
    with torch.no_grad():
        module.weight.copy_(torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
        expected = module.get_weight().numpy()
    found = series(skew_matrices(module.weight.detach().numpy()), terms)
    np.testing.assert_allclose(torch.block_diag(*torch.from_numpy(found)).numpy(), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("case", ["oft", "oft-shared", "boft"])
def test_large_blocks_turn_as_small_ones_do(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `TILED` on by the compiled product: here from 1 on."""
    small = numbers(DATA / case)
    monkeypatch.setattr(adapter_rotations, "TILED", 1)
    for name, value in numbers(DATA / case).items():
        np.testing.assert_allclose(value, small[name], rtol=1e-14, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("case", ["oft", "boft", "hra", "miss", "miss-bat", "lokr", "ia3"])
def test_an_edit_reads_the_same_in_any_pieces(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    whole = numbers(DATA / case)[name].ravel()
    entry = warmkit.open_checkpoint(DATA / case).entries[name]
    monkeypatch.setattr(adapted, "PIECE", 31)
    monkeypatch.setattr(held, "_scratch", threading.local())
    with Files() as files:
        for start, count in ((0, 1), (5, 50), (11, 2), (whole.size - 7, 7), (0, whole.size), (9, 0)):
            part = np.empty(count)
            entry.read(files, start, part.data.cast("B"))
            np.testing.assert_array_equal(part, whole[start : start + count])


BROKEN: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "which are not the parts of IA3": ("ia3", lambda found: found.update({k: v[0] for k, v in found.items()})),
    "which are not the parts of ADALORA ('lora_E')": ("adalora", without("lora_E")),
    "lora_E and lora_A do not fit": ("adalora", lambda found: found.update({k: v[1:] for k, v in found.items() if "_E" in k})),
    "its two products have two shapes": (
        "loha",
        lambda found: found.update({k: v[1:] for k, v in found.items() if "w1_a" in k}),
    ),
    "hada_w1_a and hada_w1_b do not fit": (
        "loha",
        lambda found: found.update({k: v[:1] for k, v in found.items() if "w1_b" in k}),
    ),
    "which are not the parts of LOKR ('lokr_w2_a')": ("lokr", without("lokr_w2")),
    "vera_A and vera_B do not fit": ("vera", lambda found: found.update({k: v[:2] for k, v in found.items() if "vera_A" in k})),
    "which are not the parts of VERA ('vera_A')": ("vera-without-projections", lambda _: None),
    "which are not the parts of OFT (no matrix has 5 elements above its diagonal)": (
        "oft",
        lambda found: found.update({k: v[:, :5].copy() for k, v in found.items()}),
    ),
    "it adapts 'model.layers.0.mlp.down_proj.weight' as [8, 8], there it is F64 [8, 12]": (
        "oft",
        lambda found: found.update({k: v[:2] for k, v in found.items() if "down" in k}),
    ),
    "which are not the parts of BOFT ('boft_s')": ("boft", without("boft_s")),
    "it adapts 'model.layers.0.mlp.down_proj.weight' as [8, 9], there it is F64 [8, 12]": (
        "hra",
        lambda found: found.update({k: v[:9] for k, v in found.items() if "down" in k}),
    ),
    "it adapts 'model.layers.0.mlp.down_proj.weight' as [4, 12], there it is F64 [8, 12]": (
        "miss-bat",
        lambda found: found.update({k: v[:1] for k, v in found.items() if "down" in k}),
    ),
    "which are not the parts of MISS": ("miss", lambda found: found.update({k: v[0] for k, v in found.items()})),
    "belongs to a variant of LOHA": ("loha", lambda found: found.update({f"{EXPERTS}.hada_t1": np.ones((2, 2, 3, 3))})),
}


@pytest.mark.parametrize("words", BROKEN)
def test_parts_that_do_not_fit_are_refused_in_one_line(words: str, tmp_path: Path) -> None:
    case, change = BROKEN[words]
    assert words in refused(copied(case, tmp_path / "adapter", change), WarmkitError)


@pytest.mark.parametrize("case", ["ia3", "loha", "lokr", "vera", "adalora", "tokens", "oft", "boft", "hra", "miss-bat"])
def test_an_adapter_of_another_base_is_refused_in_one_line(case: str) -> None:
    assert "does not fit" in refused(f"{DATA / 'bases' / 'llama-wide'}+{DATA / case}", WarmkitError)
