"""Merges on disk against an independent float64 reference, and their invariances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import warmkit
from tests.conftest import CONFIG, Family, make_family, save, tensors_of, weights
from tests.unit.engine import reference
from warmkit.engine.devices import find_kernels
from warmkit.engine.inputs import FileSource
from warmkit.engine.job import Done, build_job
from warmkit.engine.spec import merge_spec
from warmkit.engine.stream import Stream
from warmkit.errors import MismatchError, UsageError
from warmkit.formats.memory import in_memory
from warmkit.merging.methods import METHODS
from warmkit.verbs.merger import Merger

LINEAR = [name for name, method in METHODS.items() if not method.edits]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Beside half a unit in the last place, relative to the terms summed: float32 sums of 16-bit types; coefficients on a grid
# of 2^-40 for the others.
SLACK = {torch.float32: 2.0**-38, torch.float16: 2.0**-23, torch.bfloat16: 2.0**-23}


def members(folder: Path, dtype: torch.dtype, count: int) -> tuple[Path, list[Path]]:
    """Write an init and `count` models whose task vectors share a direction, so that no angle is special."""
    common = weights(50, scale=0.05)
    base = weights(0)
    paths = []
    for seed in range(1, count + 1):
        own = weights(seed, scale=0.1 * (1 + seed / 3))
        mixed = {name: (own[name] + common[name] - base[name]).to(dtype) for name in own}
        paths.append(save(folder / f"m{seed}", mixed))
    return save(folder / "init", {name: value.to(dtype) for name, value in base.items()}), paths


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("method", LINEAR)
def test_every_method_matches_its_float64_reference_to_rounding(
    method: str, count: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    init, models = members(tmp_path, dtype, count)
    shares = [1.0 if METHODS[method].mix == "scales" else 1 / count] * count
    mix = None
    if METHODS[method].mix == "shares":
        raw = [1 + 0.5 * place for place in range(count)]
        shares, mix = [each / sum(raw) for each in raw], raw
    for eta in (1.0, 0.3):
        out = tmp_path / f"out-{eta}"
        result = warmkit.merge(models, out, init=init, method=method, coefficients=mix, eta=eta)
        zero, full = tensors_of(init), [tensors_of(model) for model in models]
        groups = reference.layers(list(zero)) if METHODS[method].by == "layer" else {name: [name] for name in zero}
        exact = reference.merged(method, zero, full, shares, eta, groups)
        for name, tensor in tensors_of(out).items():
            assert tensor.dtype == dtype
            assert tensor.shape == zero[name].shape
            error = np.abs(tensor.double().numpy().ravel() - exact[name])
            allowed = reference.half_ulp(exact[name], dtype)
            assert np.all(error <= allowed + SLACK[dtype] * reference.magnitude(zero, full, name)), name
        assert result.parameters == sum(tensor.numel() for tensor in zero.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_angles_of_layers_match_the_reference(dtype: torch.dtype, tmp_path: Path) -> None:
    init, models = members(tmp_path, dtype, 3)
    result = warmkit.merge(models, tmp_path / "out", init=init, method="slerp")
    zero, full = tensors_of(init), [tensors_of(model) for model in models]
    groups = reference.layers(list(zero))
    assert [group.name for group in result.groups] == list(groups)
    for group in result.groups:
        tasks = [reference._flat(each, groups[group.name]) - reference._flat(zero, groups[group.name]) for each in full]
        assert group.norms == pytest.approx([np.linalg.norm(task) for task in tasks], rel=1e-12)
        assert group.angles is not None
        for i, a in enumerate(tasks):
            for j, b in enumerate(tasks):
                assert group.angles[i][j] == pytest.approx(np.degrees(reference.angle(a, b)), abs=2e-6)


def test_task_vectors_of_equal_norm_keep_it_under_slerp(tmp_path: Path) -> None:
    base = weights(0)
    generator = torch.Generator().manual_seed(3)
    paths = []
    for number in range(3):
        tasks = {name: torch.randn(value.shape, generator=generator) for name, value in base.items()}
        mixed = {name: base[name] + tasks[name] / tasks[name].norm() for name in base}
        paths.append(save(tmp_path / f"m{number}", mixed))
    init = save(tmp_path / "init", base)
    warmkit.merge(paths, tmp_path / "out", init=init, method="slerp", granularity="tensor")
    for name, value in tensors_of(tmp_path / "out").items():
        assert float((value.double() - base[name].double()).norm()) == pytest.approx(1, abs=1e-5)


# ---- invariances -------------------------------------------------------------------------------------------------------


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        name: value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, value in tensors_of(folder).items()
    }


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Models whose tensors take several blocks of a quarter million elements; flat: singular values cost the square."""
    folder = tmp_path_factory.mktemp("wide")
    paths = []
    for seed, name in enumerate(("sft", "a", "b", "c")):
        base, own = torch.Generator().manual_seed(5), torch.Generator().manual_seed(seed)
        tensors = {}
        for key, shape in {
            "embed.weight": (100, 7000),
            "layers.0.w": (100, 6000),
            "layers.0.b": (7,),
            "layers.1.w": (3, 5),
        }.items():
            value = torch.randn(shape, generator=base) + (0.1 * torch.randn(shape, generator=own) if seed else 0)
            tensors[key] = value.bfloat16()
        tensors["steps"] = torch.arange(9)
        tensors["empty"] = torch.zeros(0, 4)
        tensors["scalar"] = torch.tensor(0.5 + seed)
        paths.append(save(folder / name, tensors, shards=1 + seed))
    return Family(*paths)


@pytest.mark.parametrize("method", METHODS)
def test_the_bytes_do_not_depend_on_threads_or_shards(method: str, wide: Family, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    warmkit.merge(wide.models, whole, init=wide.init, method=method, threads=1)
    expected, first = outputs(whole), json.loads((whole / "warmkit.json").read_text())
    for threads in (1, 2, 8):
        split = tmp_path / f"split-{threads}"
        warmkit.merge(wide.models, split, init=wide.init, method=method, threads=threads, max_shard_size="1500KB")
        assert len(list(split.glob("*.safetensors"))) > 1
        assert outputs(split) == expected
        second = json.loads((split / "warmkit.json").read_text())
        assert (first["groups"], first["tensors"]) == (second["groups"], second["tensors"])


@pytest.mark.parametrize("method", METHODS)
def test_a_merge_in_memory_has_the_bytes_of_one_on_disk(method: str, wide: Family, tmp_path: Path) -> None:
    warmkit.merge(wide.models, tmp_path / "out", init=wide.init, method=method, eta=0.4)
    state = warmkit.merged_state_dict([tensors_of(wide.a), wide.b, str(wide.c)], init=wide.init, method=method, eta=0.4)
    on_disk = tensors_of(tmp_path / "out")
    assert state.keys() == on_disk.keys()
    assert all(torch.equal(state[name], on_disk[name]) for name in state)


def test_a_run_that_was_killed_after_its_result_was_in_place_says_the_same_as_one_that_was_not(
    wide: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("warmkit.engine.staging.Staging.remove", lambda staging: staging.close())  # the kill comes before
        first = warmkit.merge(wide.models, tmp_path / "out", init=wide.init, method="slerp")
    again = warmkit.merge(wide.models, tmp_path / "out", init=wide.init, method="slerp")
    assert (again.written, again.resumed > 0) == (True, True)
    assert again.mean_angle == first.mean_angle
    assert again.groups == first.groups
    assert not list(tmp_path.glob(".out*"))


def test_a_merger_overwrites_what_it_is_given_back(wide: Family) -> None:
    merger = warmkit.Merger(wide.models[:2], init=wide.init)
    first = merger.state_dict(eta=0.5)
    places = {name: value.data_ptr() for name, value in first.items()}
    second = merger.state_dict(eta=1.0, out=first)
    assert {name: value.data_ptr() for name, value in second.items()} == places
    fresh = merger.state_dict(eta=1.0)
    assert all(torch.equal(value, fresh[name]) for name, value in second.items())
    other = merger.state_dict(eta=1.0, dtype="float64", out=first)
    assert torch.float64 in {value.dtype for value in other.values()}, "what does not fit is not overwritten"
    assert all(torch.equal(value, fresh[name]) for name, value in first.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_merger_remembers_what_it_measured_with_and_without_the_init(method: str, wide: Family) -> None:
    merger = warmkit.Merger(wide.models[:2], init=wide.init, method=method)
    for eta in (0.5, 1.0, 0.5, 0.0, 1.0):
        once = warmkit.merged_state_dict(wide.models[:2], init=wide.init, method=method, eta=eta)
        assert all(torch.equal(value, once[name]) for name, value in merger.state_dict(eta=eta).items())


def test_a_sweep_writes_what_single_runs_write(wide: Family, tmp_path: Path) -> None:
    etas = [0.0, 0.1, 0.3, 1.0, 1.2]
    result = warmkit.merge(wide.models, tmp_path / "sweep", init=wide.init, method="slerp", eta=etas)
    merger = warmkit.Merger(wide.models, init=wide.init, method="slerp")
    for eta in etas:
        warmkit.merge(wide.models, tmp_path / f"single-{eta}", init=wide.init, method="slerp", eta=eta)
        assert outputs(result.outputs[eta]) == outputs(tmp_path / f"single-{eta}")
        state = merger.state_dict(eta=eta)
        assert all(torch.equal(state[name], value) for name, value in tensors_of(result.outputs[eta]).items())
    assert (tmp_path / "sweep" / "eta-1").is_dir()
    warmkit.verify(tmp_path / "sweep")


def test_a_sweep_of_averages_reads_the_init_and_keeps_the_average_at_one(wide: Family, tmp_path: Path) -> None:
    sweep = warmkit.merge(wide.models, tmp_path / "sweep", init=wide.init, method="lerp", eta=[0.5, 1.0])
    warmkit.merge(wide.models, tmp_path / "lerp", method="lerp")
    assert outputs(sweep.outputs[1.0]) == outputs(tmp_path / "lerp")


def test_end_points_are_the_inputs_bit_for_bit(wide: Family, tmp_path: Path) -> None:
    for method, share, eta, expected in (
        ("slerp", 0.0, 1.0, wide.a),
        ("slerp", 1.0, 1.0, wide.b),
        ("lerp", 0.0, 1.0, wide.a),
        ("lerp", 1.0, 1.0, wide.b),
        ("slerp-weights", 1.0, 1.0, wide.b),
        ("slerp", 0.3, 0.0, wide.init),
        ("task-arithmetic", 0.3, 0.0, wide.init),
    ):
        out = tmp_path / f"{method}-{share}-{eta}"
        warmkit.merge([wide.a, wide.b], out, init=wide.init, method=method, lambda_=share, eta=eta)
        assert outputs(out) == outputs(expected)


@pytest.mark.parametrize("method", [name for name in LINEAR if METHODS[name].mix != "scales" and not METHODS[name].beyond])
def test_identical_models_are_a_fixed_point(method: str, wide: Family, tmp_path: Path) -> None:
    copies = [wide.a, save(tmp_path / "copy", tensors_of(wide.a)), save(tmp_path / "again", tensors_of(wide.a))]
    warmkit.merge(copies, tmp_path / "out", init=wide.init, method=method)
    assert outputs(tmp_path / "out") == outputs(wide.a)
    warmkit.merge([wide.init] * 3, tmp_path / "still", init=wide.init, method=method)
    assert outputs(tmp_path / "still") == outputs(wide.init)


def test_the_same_model_twice_counts_twice(family: Family, tmp_path: Path) -> None:
    warmkit.merge([family.a, family.b, family.a], tmp_path / "out", method="lerp", coefficients=[0.1, 0.4, 0.5])
    a, b = tensors_of(family.a), tensors_of(family.b)
    for name, value in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(value, 0.6 * a[name] + 0.4 * b[name], rtol=1e-6, atol=1e-6)


def test_ema_follows_the_recursion(wide: Family, tmp_path: Path) -> None:
    warmkit.ema([wide.init, wide.a, wide.b, wide.c], tmp_path / "out", mu=0.25, dtype="float32")
    running = {name: value.double() for name, value in tensors_of(wide.init).items()}
    for path in wide.models:
        running = {name: 0.75 * running[name] + 0.25 * value.double() for name, value in tensors_of(path).items()}
    for name, value in tensors_of(tmp_path / "out").items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), running[name], rtol=1e-6, atol=1e-7)


def test_soup_is_the_mean_and_liti_moves_along_the_task_vector(family: Family, tmp_path: Path) -> None:
    warmkit.soup(family.models, tmp_path / "soup")
    warmkit.liti(family.a, tmp_path / "liti", init=family.init, eta=0.3)
    init, (a, b, c) = tensors_of(family.init), map(tensors_of, family.models)
    for name, value in tensors_of(tmp_path / "soup").items():
        torch.testing.assert_close(value, (a[name] + b[name] + c[name]) / 3)
    for name, value in tensors_of(tmp_path / "liti").items():
        torch.testing.assert_close(value, init[name] + 0.3 * (a[name] - init[name]))


# ---- types -------------------------------------------------------------------------------------------------------------


def test_models_of_different_float_types_are_widened(tmp_path: Path) -> None:
    half, full = save(tmp_path / "half", weights(1, torch.bfloat16)), save(tmp_path / "full", weights(2))
    warmkit.merge([half, full], tmp_path / "out", method="lerp")
    for name, value in tensors_of(tmp_path / "out").items():
        assert value.dtype == torch.bfloat16  # the first model's
        exact = (weights(1, torch.bfloat16)[name].double() + weights(2)[name].double()) / 2
        assert torch.equal(value, exact.float().bfloat16())
    warmkit.merge([half, full], tmp_path / "wide", method="lerp", dtype="float64")
    assert all(value.dtype == torch.float64 for value in tensors_of(tmp_path / "wide").values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_output_type_changes_floats_and_the_config_alone(dtype: str, wide: Family, tmp_path: Path) -> None:
    (wide.init / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": "bfloat16"}))
    warmkit.merge([wide.a, wide.b], tmp_path / "out", init=wide.init, dtype=dtype)
    merged = tensors_of(tmp_path / "out")
    assert merged["steps"].dtype == torch.int64
    assert {str(value.dtype) for name, value in merged.items() if name != "steps"} == {f"torch.{dtype}"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype
    (wide.init / "config.json").write_text(json.dumps(CONFIG))


def test_float64_models_are_merged_in_float64(tmp_path: Path) -> None:
    a, b = (save(tmp_path / name, {"w": torch.rand(999, dtype=torch.float64)}) for name in "ab")
    warmkit.merge([a, b], tmp_path / "out", method="lerp")
    mean = 0.5 * tensors_of(a)["w"] + 0.5 * tensors_of(b)["w"]
    assert torch.equal(tensors_of(tmp_path / "out")["w"], mean)


# ---- what lies beside the weights ------------------------------------------------------------------------------------


def test_companions_are_copied_and_training_state_is_not(family: Family, tmp_path: Path) -> None:
    for name in ("tokenizer_config.json", "generation_config.json", "merges.txt", "chat_template.jinja", "modeling_x.py"):
        (family.init / name).write_text("{}" if name.endswith("json") else f"of the init: {name}")
        (family.a / name).write_text("{}" if name.endswith("json") else "of another")
    for name in ("optimizer.pt", "trainer_state.json", "pytorch_model.bin", ".secret.json"):
        (family.init / name).write_text("x")
    (family.init / "1_Pooling").mkdir()
    (family.init / "1_Pooling" / "config.json").write_text("{}")
    (family.init / "checkpoint-5").mkdir()
    (family.init / "checkpoint-5" / "optimizer.pt").write_text("x")
    (family.init / "config.json").write_text('{"model_type":   "llama"}')
    for path in family.models:
        (path / "config.json").write_text('{"model_type": "llama"}')
    warmkit.merge(family.models, tmp_path / "out", init=family.init)
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert names == [
        "1_Pooling/config.json",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "modeling_x.py",
        "tokenizer_config.json",
        "warmkit.json",
    ]
    assert (tmp_path / "out" / "merges.txt").read_text() == "of the init: merges.txt"
    assert (tmp_path / "out" / "config.json").read_text() == '{"model_type":   "llama"}'


def test_single_files_are_inputs_and_the_result_is_a_directory(family: Family, tmp_path: Path) -> None:
    files = [path / "model.safetensors" for path in family.models]
    warmkit.merge(files, tmp_path / "out", init=family.init / "model.safetensors")
    warmkit.merge(family.models, tmp_path / "same", init=family.init)
    assert outputs(tmp_path / "out") == outputs(tmp_path / "same")
    assert not (tmp_path / "out" / "config.json").exists()


def test_the_manifest_holds_digests_coefficients_and_angles(family: Family, tmp_path: Path) -> None:
    warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init, sha256=True)
    manifest = json.loads((tmp_path / "out" / "warmkit.json").read_text())
    assert manifest["rows"] == [str(family.init), str(family.a), str(family.b)]
    assert set(manifest["tensors"]) == set(weights(0))
    assert all(len(each["inputs"]) == 3 for each in manifest["tensors"].values())
    assert "sha256" in manifest["files"]["model.safetensors"]
    for group in manifest["groups"]:
        assert sum(group["coefficients"]) == pytest.approx(1, abs=1e-12)
        assert len(group["norms"]) == 2
        assert 0 < group["angles"][0][1] < 180
    warmkit.verify(tmp_path / "out")


def test_angles_can_be_asked_of_methods_that_need_none(family: Family, tmp_path: Path) -> None:
    plain = warmkit.merge(family.models, tmp_path / "plain", method="lerp")
    asked = warmkit.merge(family.models, tmp_path / "asked", method="lerp", init=family.init, angles=True)
    arc = warmkit.merge(family.models, tmp_path / "arc", method="slerp", init=family.init)
    assert plain.mean_angle is None
    assert asked.mean_angle == pytest.approx(arc.mean_angle)
    assert outputs(tmp_path / "plain") == outputs(tmp_path / "asked")


def test_the_same_command_writes_the_same_files(family: Family, tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        warmkit.merge(family.models, tmp_path / name / "out", init=family.init)
        files = {path.name: path.read_bytes() for path in (tmp_path / name / "out").iterdir()}
        manifest = json.loads(files.pop("warmkit.json"))
        contents.append((files, {key: value for key, value in manifest.items() if key != "created"}))
    assert contents[0] == contents[1]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(family: Family, tmp_path: Path) -> None:
    plan = warmkit.merge(family.models, tmp_path / "out", init=family.init, dry_run=True, max_shard_size="2KB")
    assert not plan.written
    assert not (tmp_path / "out").exists()
    done = warmkit.merge(family.models, tmp_path / "out", init=family.init, max_shard_size="2KB")
    assert {path.name: path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")} == plan.files
    assert (plan.bytes_read, plan.bytes_written) == (done.bytes_read, done.bytes_written)


def test_progress_adds_up_to_the_plan(wide: Family, tmp_path: Path) -> None:
    moved: list[int] = []
    totals: set[int] = set()

    def advance(size: int, total: int) -> None:
        moved.append(size)
        totals.add(total)

    warmkit.merge([wide.a, wide.b], tmp_path / "out", init=wide.init, advance=advance, max_shard_size="5GB")
    (total,) = totals
    headers = sum((tmp_path / "out" / "model.safetensors").stat().st_size for _ in range(1)) - sum(
        lazy.entry.nbytes for lazy in warmkit.open_checkpoint(tmp_path / "out").values()
    )
    assert total - headers == sum(moved)


# ---- tied tensors ------------------------------------------------------------------------------------------------------

TIED = {**CONFIG, "tie_word_embeddings": True}


def headless(seed: int) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights(seed).items() if name != "lm_head.weight"}


def with_copied_head(seed: int) -> dict[str, torch.Tensor]:
    return {**headless(seed), "lm_head.weight": weights(seed)["model.embed_tokens.weight"].clone()}


def test_what_the_init_ties_stays_tied(tmp_path: Path) -> None:
    init, a = save(tmp_path / "init", headless(0), TIED), save(tmp_path / "a", headless(1), TIED)
    b = save(tmp_path / "b", with_copied_head(2), TIED)  # the same model, saved with its copy
    result = warmkit.merge([a, b], tmp_path / "out", init=init)
    assert "lm_head.weight" not in tensors_of(tmp_path / "out")
    assert any("a copy of model.embed_tokens.weight" in note for note in result.notes)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True
    in_memory = warmkit.merged_state_dict([a, b], init=init)
    assert in_memory.keys() == tensors_of(tmp_path / "out").keys()
    assert all(torch.equal(value, in_memory[name]) for name, value in tensors_of(tmp_path / "out").items())


def test_a_head_that_differs_from_a_tied_embedding_is_refused(tmp_path: Path) -> None:
    init, a = save(tmp_path / "init", headless(0), TIED), save(tmp_path / "a", headless(1), TIED)
    own = save(tmp_path / "own", weights(2), CONFIG)
    with pytest.raises(MismatchError, match="an output head of its own"):
        warmkit.merge([a, own], tmp_path / "out", init=init)
    liar = save(tmp_path / "liar", weights(2), TIED)
    with pytest.raises(MismatchError, match="two different tensors"):
        warmkit.merge([liar, liar], tmp_path / "out", method="lerp")


def test_a_tied_model_lends_its_embedding_to_an_untied_init(tmp_path: Path) -> None:
    init, a = save(tmp_path / "init", weights(0)), save(tmp_path / "a", headless(1), TIED)
    warmkit.merge([init, a], tmp_path / "out", method="lerp")
    expected = (weights(0)["lm_head.weight"] + weights(1)["model.embed_tokens.weight"]) / 2
    torch.testing.assert_close(tensors_of(tmp_path / "out")["lm_head.weight"], expected)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    torch.testing.assert_close(warmkit.merged_state_dict([init, a], method="lerp")["lm_head.weight"], expected)


def test_copies_of_a_tied_tensor_stay_equal(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"m{seed}", with_copied_head(seed), TIED) for seed in range(3)]
    warmkit.merge(paths[1:], tmp_path / "out", init=paths[0])
    merged = tensors_of(tmp_path / "out")
    assert torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])


BIASED = {"lm_head.bias": torch.linspace(0, 1, 40)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("granularity", ["layer", "model"])
@pytest.mark.parametrize("config", [TIED, CONFIG], ids=["tied", "silent"])
def test_what_all_inputs_store_twice_stays_equal_under_every_method(
    method: str, granularity: str, config: dict[str, Any], tmp_path: Path
) -> None:
    config = {key: value for key, value in config.items() if config is TIED or key != "tie_word_embeddings"}
    coarse = {name: value.bfloat16() for name, value in with_copied_head(0).items()}  # ties at every threshold
    paths = [save(tmp_path / "m0", coarse, config)]
    for seed in (1, 2):
        tensors = {name: value.bfloat16() for name, value in with_copied_head(seed).items()}
        paths.append(save(tmp_path / f"m{seed}", tensors, config))
    needs = {each.name for each in getattr(METHODS[method], "parameters", ())}
    own = {name: 0.5 for name in ("density", "select_topk") if name in needs}
    groups = {"granularity": granularity} if getattr(METHODS[method], "grouped", True) else {}
    result = warmkit.merge(paths[1:], tmp_path / "out", init=paths[0], method=method, **own, **groups)
    merged = tensors_of(tmp_path / "out")
    assert list(merged) == list(tensors_of(paths[0]))
    assert torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])
    assert sum(group.parameters for group in result.groups) == sum(value.numel() for value in headless(0).values())
    warmkit.verify(tmp_path / "out")
    in_memory = warmkit.merged_state_dict([tensors_of(path) for path in paths[1:]], init=coarse, method=method, **own, **groups)
    assert all(torch.equal(value, in_memory[name]) for name, value in merged.items())


def test_a_tied_model_has_the_angles_and_bytes_that_it_has_without_its_copy(tmp_path: Path) -> None:
    twice = [save(tmp_path / f"twice{seed}", with_copied_head(seed), TIED) for seed in range(3)]
    once = [save(tmp_path / f"once{seed}", headless(seed), TIED) for seed in range(3)]
    results = [
        warmkit.merge(paths[1:], tmp_path / name, init=paths[0], granularity="model")
        for name, paths in (("twice", twice), ("once", once))
    ]
    assert results[0].mean_angle == results[1].mean_angle
    merged = tensors_of(tmp_path / "twice")
    assert all(torch.equal(merged[name], value) for name, value in tensors_of(tmp_path / "once").items())


def test_a_copy_whose_original_was_written_alone_is_written_after_all(wide: Family, tmp_path: Path) -> None:
    held = [in_memory(f"m{seed}", {**with_copied_head(seed), **BIASED}) for seed in range(3)]
    rows = [FileSource(each.source, each.entries) for each in held]
    job = build_job(merge_spec("slerp", 2), rows, rows[0].names, None, False)
    assert job.twins == {"lm_head.weight": "model.embed_tokens.weight"}
    written: dict[str, int] = {}

    class Sink:
        def write(self, output: int, tensor: str, start: int, data: memoryview) -> None:
            written[tensor] = written.get(tensor, 0) + data.nbytes

        def solved(self, group: str, gram: Any) -> None: ...

        def finished(self, tensor: str, digests: Any, nbytes: int) -> None: ...

    stream = Stream(job, find_kernels("cpu"), Sink())
    stream.run(1)
    assert stream.digests["lm_head.weight"] == stream.digests["model.embed_tokens.weight"]
    known = {name: each for name, each in stream.digests.items() if name != "lm_head.weight"}
    written.clear()
    Stream(job, find_kernels("cpu"), Sink(), Done(tensors=known)).run(1)
    assert written == {"lm_head.weight": 1280, "model.embed_tokens.weight": 1280}


# ---- in memory -----------------------------------------------------------------------------------------------------------


def test_state_dicts_that_differ_are_refused() -> None:
    a, b = {"w": torch.zeros(2)}, {"w": torch.zeros(3)}
    with pytest.raises(MismatchError, match=r"model 2 does not fit:\s+tensor 'w' has shape \[3\], model 1 has \[2\]"):
        warmkit.merged_state_dict([a, b], method="lerp")
    with pytest.raises(MismatchError, match="extra tensor 'v', which model 1 lacks"):
        warmkit.merged_state_dict([a, {**a, "v": torch.zeros(1)}], method="lerp")
    with pytest.raises(UsageError, match="needs --init"):
        warmkit.merged_state_dict([a, a], method="slerp")


def test_a_merger_slides_lambda_without_taking_products_again() -> None:
    init = {"w": torch.zeros(2)}
    merger = warmkit.Merger([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}], init=init)
    for share in (0.0, 0.25, 1.0):
        x, y = merger.state_dict(lambda_=share)["w"].tolist()
        assert (x, y) == pytest.approx((np.cos(share * np.pi / 2), np.sin(share * np.pi / 2)), abs=1e-6)


def test_tensors_that_are_not_contiguous_are_read_as_they_are() -> None:
    a = torch.arange(12.0).reshape(3, 4).T
    merged = warmkit.merged_state_dict([{"w": a}, {"w": a + 1}], method="lerp")["w"]
    assert torch.equal(merged, a + 0.5)


def test_bfloat16_families_merge_too(tmp_path: Path) -> None:
    family = make_family(tmp_path, torch.bfloat16, shards=3)
    warmkit.merge(family.models, tmp_path / "out", init=family.init, max_shard_size="3KB")
    warmkit.verify(tmp_path / "out")
    assert all(value.dtype == torch.bfloat16 for value in tensors_of(tmp_path / "out").values())
    assert len(load_file(sorted((tmp_path / "out").glob("*.safetensors"))[0])) >= 1


def test_products_do_not_depend_on_what_a_thread_did_before(tmp_path: Path) -> None:
    """A buffer that was larger once must give the same sums to the last bit: resumed runs and other threads report them."""
    init, models = members(tmp_path, torch.float32, 2)
    alone = Merger(models, init=init, threads=1)
    alone.state_dict()
    wide = {"wide": torch.randn(700_001), **{name: lazy.load() for name, lazy in warmkit.open_checkpoint(init).items()}}
    rows = [{"wide": wide["wide"] * (1 + row), **tensors_of(model)} for row, model in enumerate(models)]
    after = Merger(rows, init=wide, threads=1)
    after.state_dict()
    ours, theirs = alone._grams[True], after._grams[True]
    assert len(theirs) == len(ours) + 1
    for name, gram in ours.items():
        np.testing.assert_array_equal(gram, theirs[name])
