"""Adapters stand for the dense weights that peft itself makes of them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import warmkit
from tests.conftest import save, tensors_of, weights
from tests.unit.layouts import lora
from warmkit.errors import CheckpointError, FormatError, MismatchError, NonFiniteError, OutputError, UnsupportedError
from warmkit.formats import held
from warmkit.layouts import adapted
from warmkit.layouts.adapted import AdaptedTensor
from warmkit.layouts.adapters import ties_head
from warmkit.modeling.causal_model import load_causal_model
from warmkit.sources.files import Files

LLAMA = ["q_proj", "k_proj", "down_proj", "lm_head"]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"r": 4, "lora_alpha": 6, "target_modules": LLAMA}),
    "every linear layer": ("mistral", {"r": 3, "target_modules": "all-linear"}),
    "rslora": ("llama", {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": LLAMA}),
    "patterns": (
        "llama",
        {
            "r": 4,
            "target_modules": LLAMA,
            "rank_pattern": {"q_proj": 7, r"layers\.1\.mlp\.down_proj": 2},
            "alpha_pattern": {"k_proj": 12, "^model.layers.0.self_attn.q_proj": 3},
        },
    ),
    "patterns and rslora": ("llama", {"r": 4, "target_modules": LLAMA, "use_rslora": True, "rank_pattern": {"q_proj": 9}}),
    "dora": ("llama", {"r": 4, "use_dora": True, "target_modules": LLAMA}),
    "conv1d": ("gpt2", {"r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "conv1d, dora": ("gpt2", {"r": 4, "target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True}),
    "conv1d beside linear": (
        "gpt2",
        {"r": 4, "target_modules": ["c_proj", "lm_head"], "changes": {"tie_word_embeddings": False}},
    ),
    "an encoder of linear layers, a decoder of conv1d": ("bert to gpt2", {"r": 4, "target_modules": ["query", "c_proj"]}),
    "embeddings": ("llama", {"r": 4, "target_modules": ["embed_tokens", "q_proj"]}),
    "embeddings, dora": ("llama", {"r": 4, "target_modules": ["embed_tokens"], "use_dora": True}),
    "modules to save": ("llama", {"r": 4, "target_modules": ["v_proj"], "modules_to_save": ["lm_head", "model.norm"]}),
    "a head": ("bert", {"r": 4, "target_modules": ["query", "value"], "task": "SEQ_CLS"}),
    "all biases": ("bert", {"r": 4, "target_modules": ["query", "dense"], "bias": "all"}),
    "lora's biases": ("qwen2", {"r": 4, "target_modules": ["q_proj", "v_proj"], "bias": "lora_only"}),
    "a bias of lora_B": ("qwen2", {"r": 4, "target_modules": ["q_proj"], "lora_bias": True}),
    "minor components": ("llama", {"r": 4, "target_modules": ["q_proj"], "init_lora_weights": "mica"}),
    "orthogonal": ("llama", {"r": 4, "target_modules": ["q_proj"], "init_lora_weights": "orthogonal"}),
    "some layers": ("llama", {"r": 4, "target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}),
    "all but": (
        "llama",
        {"r": 4, "target_modules": r".*_proj", "exclude_modules": ["q_proj"], "rank_pattern": {"^.*k_proj": 2}},
    ),
    "rank one": ("llama", {"r": 1, "target_modules": LLAMA}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_stands_for_the_weights_that_peft_merges(kind: str, tmp_path: Path) -> None:
    architecture, config = KINDS[kind]
    config = dict(config)
    base = lora.base(tmp_path / "base", architecture, **config.pop("changes", {}))
    adapter = lora.adapter(tmp_path / "adapter", base, **config)
    expected, before = lora.dense(base, adapter), warmkit.open_checkpoint(base)
    found = warmkit.open_checkpoint(f"{base}+{adapter}")
    assert list(found) == list(before)
    changed = 0
    for name in found:
        torch.testing.assert_close(found[name].load(), expected[name], rtol=2e-6, atol=2e-6)
        changed += not torch.equal(found[name].load(), before[name].load())
    assert changed


@pytest.mark.parametrize(
    ("kind", "head", "tied"),
    [
        ("gemma2", True, True),
        ("llama", True, False),
        ("llama", False, True),
        ("of_others", False, True),
        ("of_others", True, False),
    ],
)
def test_a_silent_config_ties_as_its_architecture_does_or_where_there_is_no_head(
    kind: str, head: bool, tied: bool, tmp_path: Path
) -> None:
    config = {"model_type": kind, "architectures": ["SomeForCausalLM"]}
    kept = {name: each for name, each in weights(1).items() if head or name != "lm_head.weight"}
    assert ties_head(warmkit.open_checkpoint(save(tmp_path / "m", kept, config))) is tied


def test_conv1d_of_an_architecture_that_is_not_known_is_told_by_the_flag_and_by_other_modules(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base", "gpt2", tie_word_embeddings=False)
    square = lora.adapter(tmp_path / "square", base, r=4, target_modules=[r"attn.c_proj"])
    told = lora.adapter(tmp_path / "told", base, r=4, target_modules=["c_proj", "lm_head"])  # mlp.c_proj is not square
    open_ = lora.adapter(tmp_path / "open", base, r=4, target_modules=["attn.c_proj", "c_fc"])
    expected = {each: lora.dense(base, each) for each in (square, told)}
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "of_remote_code"}))
    for adapter, peft in expected.items():
        for name, value in warmkit.open_checkpoint(f"{base}+{adapter}").items():
            torch.testing.assert_close(value.load(), peft[name], rtol=2e-6, atol=2e-6)
    with pytest.raises(UnsupportedError, match=r"module '.*attn\.c_proj' is square, and neither its config .*'of_remote_code'"):
        warmkit.open_checkpoint(f"{base}+{open_}")


@pytest.mark.parametrize("saved", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"]])
def test_a_head_or_an_embedding_alone_unties_the_base_as_peft_does(saved: list[str], tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base", tie_word_embeddings=True)
    adapter = lora.adapter(tmp_path / "adapter", base, r=2, target_modules=["q_proj"], modules_to_save=saved)
    lora.save_dense(tmp_path / "dense", base, adapter)
    made = warmkit.soup([f"{base}+{adapter}"], tmp_path / "out")
    assert any("so they are untied" in note for note in made.notes)
    expected, found = tensors_of(tmp_path / "dense"), tensors_of(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=2e-6, atol=2e-6)
    tied = [json.loads((tmp_path / each / "config.json").read_text())["tie_word_embeddings"] for each in ("dense", "out")]
    assert tied == [False, False]
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        logits = [lora.loaded(tmp_path / each)(tokens).logits for each in ("dense", "out")]
        loaded = load_causal_model(f"{base}+{adapter}")(tokens).logits
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded, logits[0], rtol=1e-5, atol=1e-5)


# ---- merging adapters is merging what they stand for ----------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A base, two adapters on it, and the dense models that peft makes of them."""

    base: Path
    adapters: tuple[Path, Path]
    dense: tuple[Path, Path]

    @property
    def sources(self) -> list[str]:
        return [f"{self.base}+{each}" for each in self.adapters]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    base = lora.base(folder / "base")
    first = lora.adapter(folder / "first", base, r=4, lora_alpha=8, target_modules="all-linear")
    second = lora.adapter(folder / "second", base, seed=2, r=3, target_modules=LLAMA, use_dora=True, modules_to_save=["norm"])
    one, two = (lora.save_dense(folder / f"dense-{each.name}", base, each) for each in (first, second))
    return Pair(base, (first, second), (one, two))


@pytest.mark.parametrize("method", ["lerp", "slerp", "karcher", "task-arithmetic"])
def test_a_merge_of_adapters_is_the_merge_of_the_dense_models(method: str, pair: Pair, tmp_path: Path) -> None:
    for models, name in ((pair.sources, "adapters"), (pair.dense, "dense"), ([pair.sources[0], pair.dense[1]], "mixed")):
        warmkit.merge(models, tmp_path / name, init=pair.base, method=method, eta=0.7)
    expected = tensors_of(tmp_path / "dense")
    for name in ("adapters", "mixed"):
        for tensor, value in tensors_of(tmp_path / name).items():
            torch.testing.assert_close(value, expected[tensor], rtol=5e-6, atol=5e-6)
        warmkit.verify(tmp_path / name)
    assert (tmp_path / "adapters" / "config.json").read_bytes() == (pair.base / "config.json").read_bytes()


def test_the_product_of_averaged_factors_is_something_else(pair: Pair, tmp_path: Path) -> None:
    one, two = load_file(pair.adapters[0] / "adapter_model.safetensors"), tensors_of(pair.dense[0])
    name = "model.layers.0.self_attn.q_proj"
    a, b = (one[f"base_model.model.{name}.{part}.weight"] for part in ("lora_A", "lora_B"))
    halves = (b / 2) @ (a / 2) * 2  # (B_1 + B_2) / 2 @ (A_1 + A_2) / 2 with a second adapter of zeros
    warmkit.merge([pair.sources[0], pair.base], tmp_path / "out", method="lerp")
    found = tensors_of(tmp_path / "out")[f"{name}.weight"]
    base = tensors_of(pair.base)[f"{name}.weight"]
    torch.testing.assert_close(found, (base + two[f"{name}.weight"]) / 2, rtol=5e-6, atol=5e-6)
    assert (found - (base + halves)).abs().max() > 1e-2


def test_the_same_bytes_with_any_number_of_threads(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = set()
    for threads, piece in ((1, 1 << 19), (2, 100), (8, 37)):
        monkeypatch.setattr(adapted, "PIECE", piece)
        monkeypatch.setattr(held, "KEPT", 1 if threads == 8 else 12)  # factors are dropped and read again
        monkeypatch.setattr(held, "_scratch", threading.local())
        warmkit.merge(pair.sources[:1] * 2 + pair.sources[:1], tmp_path / f"{threads}", method="uniform", threads=threads)
        written.add((tmp_path / f"{threads}" / "model.safetensors").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("kind", ["lora", "dora", "conv1d, dora"])
def test_a_tensor_reads_the_same_in_any_pieces(kind: str, tmp_path: Path) -> None:
    architecture, config = KINDS[kind]
    base = lora.base(tmp_path / "base", architecture)
    source = f"{base}+{lora.adapter(tmp_path / 'adapter', base, **config)}"
    found = warmkit.open_checkpoint(source)
    name = next(name for name, entry in found.entries.items() if isinstance(entry, AdaptedTensor))
    entry, whole = found.entries[name], found[name].load().flatten().numpy()
    with Files() as files:
        for start, count in ((0, 1), (5, 40), (23, 26), (100, 333), (entry.elements - 7, 7), (0, entry.elements), (9, 0)):
            part = np.empty(count, "float32")
            entry.read(files, start, part.data.cast("B"))
            np.testing.assert_array_equal(part, whole[start : start + count])


def test_a_difference_smaller_than_a_bfloat16_step_is_kept_until_the_end(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base", dtype=torch.bfloat16)
    adapter = lora.adapter(tmp_path / "adapter", base, r=4, lora_alpha=1, target_modules=["q_proj"], modules_to_save=["norm"])
    exact, rounded = lora.dense(base, adapter), lora.dense(base, adapter, torch.bfloat16)
    name = "model.layers.0.self_attn.q_proj.weight"
    source = f"{base}+{adapter}"
    warmkit.liti(source, tmp_path / "twice", init=base, eta=2.0, dtype="float32")
    before = warmkit.open_checkpoint(base)[name].load().float()
    torch.testing.assert_close(tensors_of(tmp_path / "twice")[name], before + 2 * (exact[name] - before), rtol=1e-5, atol=1e-6)
    assert (rounded[name].float() - exact[name]).abs().max() > 1e-4  # what peft leaves in the base's type
    warmkit.soup([source], tmp_path / "out")
    for tensor, value in tensors_of(tmp_path / "out").items():
        assert value.dtype == torch.bfloat16, tensor
        assert torch.equal(value, exact[tensor].bfloat16()), tensor


def test_float64_bases_stay_float64(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base", dtype=torch.float64)
    adapter = lora.adapter(tmp_path / "adapter", base, r=4, target_modules=["q_proj"])
    expected, name = lora.dense(base, adapter, torch.float64), "model.layers.1.self_attn.q_proj.weight"
    found = warmkit.open_checkpoint(f"{base}+{adapter}")[name].load()
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected[name], rtol=1e-7, atol=1e-8)  # peft adds a float32 product


def test_products_from_factors_are_the_products_of_the_dense_differences(pair: Pair, tmp_path: Path) -> None:
    second = lora.adapter(tmp_path / "other", pair.base, seed=3, r=5, use_rslora=True, target_modules=["q_proj", "down_proj"])
    sources = [pair.sources[0], f"{pair.base}+{second}", str(pair.base)]
    dense = [pair.dense[0], lora.save_dense(tmp_path / "dense-other", pair.base, second), pair.base]
    results = []
    for name, models in (("factors", sources), ("dense", dense)):
        results.append(warmkit.merge(models, tmp_path / name, init=pair.base, method="slerp", granularity="tensor"))
    known, measured = ({group.name: group for group in result.groups} for result in results)
    for name, group in known.items():
        np.testing.assert_allclose(group.norms, measured[name].norms, rtol=1e-5, atol=1e-6)
        found, expected = (np.array(each.angles, dtype=float) for each in (group, measured[name]))  # None becomes NaN
        np.testing.assert_allclose(found, expected, atol=0.02)
    assert results[0].bytes_read == results[1].bytes_read / 2  # one pass, not two


def test_a_base_that_only_looks_the_same_is_read(pair: Pair, tmp_path: Path) -> None:
    """Products from factors hold for task vectors from that base alone: a copy has other bytes, for all that is known."""
    shutil.copytree(pair.base, tmp_path / "copy")
    shifted = {name: value + 0.5 for name, value in tensors_of(pair.base).items()}
    save(tmp_path / "copy", shifted, None)
    one, two = (
        warmkit.merge([pair.sources[0]] * 2, tmp_path / f"out-{number}", init=init, method="slerp", antiparallel="lerp")
        for number, init in enumerate((pair.base, tmp_path / "copy"))
    )
    norms = [sum(group.norms[0] for group in result.groups if group.norms) for result in (one, two)]
    assert norms[1] > 2 * norms[0]
    assert one.bytes_read < two.bytes_read


def test_in_memory_and_in_comparisons(pair: Pair) -> None:
    merger = warmkit.Merger(pair.sources, init=pair.base)
    dense = warmkit.Merger(pair.dense, init=pair.base)
    expected = dense.state_dict(eta=0.3)
    for name, value in merger.state_dict(eta=0.3).items():
        torch.testing.assert_close(value, expected[name], rtol=5e-6, atol=5e-6)
    one, two = (warmkit.compare(models, init=pair.base) for models in (pair.sources, pair.dense))
    found, known = (each.mean_angles()[0]["task_vectors"] for each in (one, two))
    assert found == pytest.approx(known, abs=1e-3)
    assert one.models == pair.sources


# ---- which base, which files ----------------------------------------------------------------------------------------


def test_an_adapter_alone_finds_its_base(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = tmp_path / "runs" / "adapter"
    shutil.copytree(pair.adapters[0], adapter)
    expected = tensors_of(pair.sources[0])
    places = {"absolute": str(pair.base), "beside": "../../there/base", "here": "there/base"}
    shutil.copytree(pair.base, tmp_path / "there" / "base")
    monkeypatch.chdir(tmp_path)
    for named in places.values():
        edit(adapter, base_model_name_or_path=named)
        found = warmkit.open_checkpoint("runs/adapter")
        assert found.path.resolve() in (pair.base, tmp_path / "there" / "base")
        assert all(torch.equal(found[name].load(), expected[name]) for name in expected)
        assert "adapter on" in found.notes[0]
        assert named.rpartition("/")[2] in found.notes[0]
    result = warmkit.soup(["runs/adapter", "runs/adapter"], tmp_path / "out")
    assert any("runs/adapter: adapter on" in note for note in result.notes)


def test_paths_may_hold_plus_signs_and_adapters_stack(pair: Pair, tmp_path: Path) -> None:
    base, adapter = tmp_path / "a+b", tmp_path / "c+d+e"
    shutil.copytree(pair.base, base)
    shutil.copytree(pair.adapters[0], adapter)
    expected = tensors_of(pair.sources[0])
    found = tensors_of(f"{base}+{adapter}")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert list(warmkit.open_checkpoint(base)) == list(expected)
    twice = tensors_of(f"{base}+{adapter}+{adapter}")
    before, name = tensors_of(base), "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(twice[name] - before[name], 2 * (expected[name] - before[name]), rtol=1e-4, atol=1e-6)


def test_dora_on_dora_is_one_merged_before_the_other_is_loaded(tmp_path: Path) -> None:
    base, name = lora.base(tmp_path / "base"), "model.layers.0.self_attn.q_proj.weight"
    first, second = (
        lora.adapter(tmp_path / f"{seed}", base, seed, r=2, use_dora=True, target_modules=["q_proj"]) for seed in (1, 2)
    )
    lora.save_dense(tmp_path / "merged", base, first)
    found = warmkit.open_checkpoint(f"{base}+{first}+{second}")[name].load()
    torch.testing.assert_close(found, lora.dense(tmp_path / "merged", second)[name], rtol=2e-6, atol=2e-6)
    one, two = (lora.dense(base, each)[name] for each in (first, second))
    assert (found - (one + two - tensors_of(base)[name])).abs().max() > 0.01  # the sum of both differences is something else


def test_a_base_saved_without_its_prefix(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base", "gpt2")
    adapter = lora.adapter(tmp_path / "adapter", base, r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    expected = tensors_of(f"{base}+{adapter}")
    bare = {name.removeprefix("transformer."): value for name, value in tensors_of(base).items()}
    save(tmp_path / "bare", bare, {"model_type": "gpt2"})
    found = tensors_of(f"{tmp_path / 'bare'}+{adapter}")
    assert all(torch.equal(found[name.removeprefix("transformer.")], value) for name, value in expected.items())


def test_the_manifest_records_base_and_adapter(pair: Pair, tmp_path: Path) -> None:
    warmkit.merge(pair.sources, tmp_path / "out", init=pair.base)
    manifest = json.loads((tmp_path / "out" / "warmkit.json").read_text())
    assert set(manifest["models"][0]["files"]) == {
        "model.safetensors",
        "first/adapter_model.safetensors",
        "first/adapter_config.json",
    }
    assert manifest["models"][1]["source"] == pair.sources[1]


def test_an_edited_config_is_another_input(pair: Pair, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(pair.adapters[0], adapter)
    before = warmkit.open_checkpoint(f"{pair.base}+{adapter}").fingerprint()
    edit(adapter, lora_alpha=80)
    after = warmkit.open_checkpoint(f"{pair.base}+{adapter}").fingerprint()
    assert before != after
    assert len(after) == 3


def edit(adapter: Path, **changes: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# ---- refused by name ------------------------------------------------------------------------------------------------

CONFIGS: dict[str, dict[str, Any]] = {
    "kind 'RANDLORA', which is not read (": {"peft_type": "RANDLORA"},
    "kind 'POLY'": {"peft_type": "POLY"},
    "are not the parts of IA3": {"peft_type": "IA3"},
    "layer_replication": {"layer_replication": [[0, 2], [1, 2]]},
    "target_parameters": {"target_parameters": ["experts.gate_up_proj"]},
    "trainable_token_indices": {"trainable_token_indices": [1, 2]},
    "alora_invocation_tokens": {"alora_invocation_tokens": [3]},
    "use_qalora": {"use_qalora": True},
    "monteclora_config": {"monteclora_config": {"sample_scaler": 1}},
    "use_bdlora": {"use_bdlora": {"nblocks": 2}},
    "arrow_config": {"arrow_config": {"top_k": 2}},
    "kasa_config": {"kasa_config": {"beta": 1}},
    "megatron_config": {"megatron_config": {"hidden_size": 8}},
    "path_initial_model_for_weight_conversion": {"init_lora_weights": "pissa_niter_4"},
    "use_tomorrows_lora is not known": {"use_tomorrows_lora": True},
    "says rank 5": {"r": 5},
    "expected r, lora_alpha": {"r": 0},
    "expected r, lora_alpha and": {"rank_pattern": {"q_proj": "four"}},
    "expected r, lora_alpha and patterns": {"alpha_pattern": {"(": 3}},
    "use_dora is True, found none": {"use_dora": True},
}


@pytest.mark.parametrize("words", CONFIGS)
def test_a_config_that_means_something_else_is_refused_in_one_line(words: str, pair: Pair, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(pair.adapters[0], adapter)
    edit(adapter, **CONFIGS[words])
    assert words in refused(f"{pair.base}+{adapter}", CheckpointError)


def refused(source: str, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        warmkit.open_checkpoint(source)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def rewritten(pair: Pair, folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    """Return the first adapter with its tensors changed, on the base."""
    shutil.copytree(pair.adapters[0], folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    return f"{pair.base}+{folder}"


QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


def test_a_broken_file_is_refused_in_one_line(pair: Pair, tmp_path: Path) -> None:
    incomplete = rewritten(pair, tmp_path / "a", lambda tensors: tensors.pop(f"{QUERY}.lora_B.weight"))
    assert "layers.0.self_attn.q_proj' has lora_A and no lora_B" in refused(incomplete, FormatError)
    cut = tmp_path / "b"
    shutil.copytree(pair.adapters[0], cut)
    with (cut / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(5000)
    assert "adapter_model.safetensors: " in refused(f"{pair.base}+{cut}", FormatError)
    variant = rewritten(pair, tmp_path / "c", lambda tensors: tensors.update({f"{QUERY}.lora_diag": torch.ones(4)}))
    assert "lora_diag" in refused(variant, UnsupportedError)
    (cut / "adapter_model.safetensors").rename(cut / "adapter_model.bin")
    assert "pickle" in refused(f"{pair.base}+{cut}", UnsupportedError)
    (cut / "adapter_model.bin").unlink()
    assert "expected adapter_model.safetensors" in refused(f"{pair.base}+{cut}", CheckpointError)
    conv = rewritten(pair, tmp_path / "d", lambda tensors: tensors.update({f"{QUERY}.lora_A.weight": torch.ones(4, 24, 3)}))
    assert "is no matrix" in refused(conv, UnsupportedError)


def test_an_adapter_for_another_base_is_refused_in_one_line(pair: Pair, tmp_path: Path) -> None:
    wide = lora.base(tmp_path / "wide", hidden_size=32)
    message = refused(f"{wide}+{pair.adapters[0]}", MismatchError)
    assert f"{pair.adapters[0] / 'adapter_model.safetensors'} does not fit {wide}: it adapts" in message
    assert "there it is F32 [40, 32]" in message.replace("[32, 40]", "[40, 32]")
    assert "more do not fit" in message
    other = lora.base(tmp_path / "other", "gpt2")
    assert "which is not there" in refused(f"{other}+{pair.adapters[0]}", MismatchError)
    head = lora.base(tmp_path / "bert", "bert")
    scored = lora.adapter(tmp_path / "scored", head, r=2, target_modules=["query"], task="SEQ_CLS")
    bare = {name: value for name, value in tensors_of(head).items() if not name.startswith("classifier")}
    save(tmp_path / "bare", bare, {"model_type": "bert"})
    assert "save the base with that module first" in refused(f"{tmp_path / 'bare'}+{scored}", MismatchError)


def test_a_resized_vocabulary_is_refused_with_advice(pair: Pair, tmp_path: Path) -> None:
    wider = rewritten(
        pair, tmp_path / "a", lambda tensors: tensors.update({"base_model.model.model.embed_tokens.weight": torch.ones(63, 24)})
    )
    assert "resize the base first" in refused(wider, MismatchError)


def test_an_embedding_that_is_also_the_head_is_refused(tmp_path: Path) -> None:
    base = lora.base(tmp_path / "base", "gpt2")
    adapter = lora.adapter(tmp_path / "adapter", base, r=2, target_modules=["wte"])
    assert "ties to lm_head.weight" in refused(f"{base}+{adapter}", UnsupportedError)


def test_a_base_that_is_not_there_is_named(pair: Pair, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(pair.adapters[0], adapter)
    edit(adapter, base_model_name_or_path=None)
    assert "give the base as BASE+ADAPTER" in refused(str(adapter), CheckpointError)
    edit(adapter, base_model_name_or_path="./nowhere")
    message = refused(str(adapter), CheckpointError)
    assert "nowhere" in message
    assert f"give it as BASE+{adapter}" in message
    assert "is no path and no repository" in refused(f"{pair.base}+nowhere", CheckpointError)
    assert "expected an adapter's directory" in refused(f"{pair.base}+{pair.base}", CheckpointError)


def test_results_do_not_replace_an_adapter_that_is_an_input(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is an input"):
        warmkit.soup(pair.sources, pair.adapters[1], force=True)


def test_nan_in_an_adapter_is_found_and_named(pair: Pair, tmp_path: Path) -> None:
    poisoned = rewritten(
        pair, tmp_path / "a", lambda tensors: tensors[f"{QUERY}.lora_A.weight"].view(-1)[3:4].fill_(float("nan"))
    )
    with pytest.raises(NonFiniteError, match=r"layers\.0\.self_attn\.q_proj\.weight.*holds NaN"):
        warmkit.merge([poisoned, pair.base], tmp_path / "out", method="lerp")
    with pytest.raises(NonFiniteError, match="factors of an adapter hold NaN"):
        warmkit.merge([poisoned, pair.sources[0]], tmp_path / "out", init=pair.base)
    assert not (tmp_path / "out").exists()
