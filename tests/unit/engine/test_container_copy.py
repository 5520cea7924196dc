"""Results in the container of their inputs (`--as same`): the merged numbers in every place, everything else as it was."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import Replicate, Shard

import warmkit
from tests.conftest import Run, save, tensors_of, weights
from tests.unit.formats.ranks import save_ranks
from warmkit.errors import FormatError, UnsupportedError, UsageError, WarmkitError
from warmkit.formats.dtensors import DTENSOR_NAMES, PartOfTensor
from warmkit.formats.state_dicts import entry
from warmkit.formats.tensors import Tensor
from warmkit.formats.torch_zip import TorchTensor, read_torch_zip
from warmkit.formats.zero_files import ZERO_NAMES
from warmkit.sources.files import Files

DATA = Path(__file__).parents[2] / "data"


def mean(*models: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: (sum(each[name].double() for each in models) / len(models)).to(first.dtype)  # type: ignore[union-attr]
        if first.is_floating_point()
        else first
        for name, first in models[0].items()
    }


def same(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def stored(file: Path) -> dict[tuple[str, ...], torch.Tensor]:
    """Return every tensor of a torch file by the keys that lead to it, a rank's part where there are parts."""

    def walk(tree: Any, path: tuple[str, ...]) -> None:
        tree = tree.local if isinstance(tree, PartOfTensor) else tree
        if isinstance(tree, TorchTensor):
            found[path] = read(entry("", tree))
        elif isinstance(tree, Mapping | list | tuple):
            for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
                walk(value, (*path, str(key)))

    found: dict[tuple[str, ...], torch.Tensor] = {}
    walk(read_torch_zip(file, more={**ZERO_NAMES, **DTENSOR_NAMES}), ())
    return found


def read(tensor: Tensor) -> torch.Tensor:
    buffer = bytearray(tensor.nbytes)
    with Files() as files:
        tensor.read(files, 0, memoryview(buffer))
    dtype = getattr(torch, tensor.dtype.torch_name)
    return torch.frombuffer(buffer, dtype=dtype).reshape(tensor.shape) if buffer else torch.empty(tensor.shape, dtype=dtype)


# ---- what the libraries wrote --------------------------------------------------------------------------------------------

WRITTEN = {
    "zero 1, bfloat16": "zero/stage1-bfloat16",
    "zero 1, aligned": "zero/stage1-aligned",
    "zero 2, three ranks": "zero/stage2-round-robin",
    "zero 3": "zero/stage3-float32",
    "zero 3, sub groups": "zero/stage3-sub-groups",
    "zero under transformers": "zero/trainer/checkpoint-2",
    "FSDP1": "rank_files/fsdp1/global_step_2",
    "FSDP2": "rank_files/fsdp2/global_step_2",
    "FSDP2, other axis": "rank_files/columns/global_step_2",
    "HSDP": "rank_files/hsdp2/global_step_2",
    "whole on every rank": "rank_files/full/global_step_2",
    "HuggingFaceStorageWriter": "hf_shards/mixed",
    "torchtitan": "torchtitan/run/step-2",
    "timm": "averages_inside/timm.pth.tar",
}


@pytest.mark.parametrize("name", WRITTEN.values(), ids=list(WRITTEN))
def test_the_mean_lies_where_the_trainer_reads_its_weights(name: str, tmp_path: Path) -> None:
    model, out = DATA / name, tmp_path / "out"
    how: dict[str, Any] = {"allow_pickle": True, "state_dict": "state_dict_ema" if "timm" in name else None}
    before = tensors_of(model, **how)
    other = {key: each * 3 if each.is_floating_point() else each for key, each in before.items()}
    save_file(other, tmp_path / "other.safetensors")
    warmkit.soup([model, tmp_path / "other.safetensors"], out, container="same", optimizer="keep", **how)
    opened = out / model.name if model.is_file() else out
    assert same(
        tensors_of(opened, **how), {key: each * 2 if each.is_floating_point() else each for key, each in before.items()}
    )
    assert warmkit.verify(out).tensors == len(before)
    for file in (each for each in model.rglob("*") if each.is_file() and each.name != "model.safetensors"):
        copy = out / file.relative_to(model)
        assert copy.is_file()
        assert copy.stat().st_size == file.stat().st_size


def test_what_is_no_weight_stays_as_it_was_byte_for_byte(tmp_path: Path) -> None:
    run, out = DATA / "rank_files" / "run", tmp_path / "out"
    warmkit.average(run, out, allow_pickle=True, container="same")
    newest = run / "global_step_3"
    for name in (
        "extra_state_world_size_2_rank_1.pt",
        "fsdp_config.json",
        "huggingface/config.json",
        "huggingface/tokenizer.json",
    ):
        assert (out / name).read_bytes() == (newest / name).read_bytes()
    one = {name: (out / name).read_bytes() for name in ("model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt")}
    changed = [sum(a != b for a, b in zip(one[name], (newest / name).read_bytes())) for name in one]
    assert all(changed)


@pytest.mark.parametrize("stage", ["stage1-bfloat16", "stage2-bfloat16", "stage3-bfloat16"])
def test_what_the_model_computes_with_is_the_mean_rounded_and_moments_are_averaged_or_kept(stage: str, tmp_path: Path) -> None:
    first, second, out = DATA / "zero" / stage, tmp_path / "second", tmp_path / "out"
    shutil.copytree(first, second)
    home = next(second.glob("global_step*"))
    for file in home.glob("*optim_states.pt"):  # other moments, as of another step
        edit(file, lambda keys, tensor: tensor * 3 if keys[-1] in ("exp_avg", "exp_avg_sq") else tensor)
    for optimizer, factor in (("average", 2), ("keep", 1)):
        warmkit.soup([first, second], out, allow_pickle=True, container="same", optimizer=optimizer, force=True)
        for file in next(first.glob("global_step*")).glob("*optim_states.pt"):
            before, after = stored(file), stored(out / file.relative_to(first))
            assert before.keys() == after.keys()
            moments = [keys for keys in before if keys[-1] in ("exp_avg", "exp_avg_sq")]
            assert moments
            for keys in before:
                expected = before[keys] * factor if keys in moments else before[keys]
                assert bits(after[keys]) == bits(expected), keys  # padding holds whatever there was
    model = next(out.rglob("*rank_00_model_states.pt"))
    wanted = tensors_of(out, allow_pickle=True)
    for keys, tensor in stored(model).items():
        if keys[0] == "module" and tensor.numel():
            assert torch.equal(tensor, wanted[keys[-1]].to(tensor.dtype)), keys


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def edit(file: Path, change: Any) -> None:
    """Change the numbers of a torch file where they lie."""
    tree = read_torch_zip(file, more={**ZERO_NAMES, **DTENSOR_NAMES})
    content = bytearray(file.read_bytes())

    def walk(tree: Any, path: tuple[str, ...]) -> None:
        if isinstance(tree, TorchTensor):
            new = change(path, read(entry("", tree))).contiguous()
            content[tree.offset : tree.offset + new.nbytes] = bits(new)
        elif isinstance(tree, Mapping | list | tuple):
            for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
                walk(value, (*path, str(key)))

    walk(tree, ())
    file.write_bytes(content)


# ---- shapes of places ----------------------------------------------------------------------------------------------------


def test_every_rank_that_has_a_copy_gets_the_mean(tmp_path: Path) -> None:
    parts = [{"a": torch.randn(7, 5), "b": torch.randn(6, 4), "c": torch.randn(3)} for _ in range(2)]
    cuts = {"a": [Replicate(), Shard(0)], "b": [Replicate(), Shard(1)], "c": [Replicate(), Replicate()]}
    for number, each in enumerate(parts):
        save_ranks(tmp_path / str(number), (2, 2), {name: (tensor, cuts[name]) for name, tensor in each.items()})
    warmkit.soup([tmp_path / "0", tmp_path / "1"], tmp_path / "out", allow_pickle=True, container="same")
    ranks = [stored(tmp_path / "out" / f"model_world_size_4_rank_{rank}.pt") for rank in range(4)]
    wanted = mean(*parts)
    for one, two in ((0, 2), (1, 3)):
        assert same(
            {keys[-1]: each for keys, each in ranks[one].items()}, {keys[-1]: each for keys, each in ranks[two].items()}
        )
    assert torch.equal(torch.cat([ranks[2][("a",)], ranks[3][("a",)]]), wanted["a"])
    assert torch.equal(torch.cat([ranks[2][("b",)], ranks[3][("b",)]], dim=1), wanted["b"])
    assert torch.equal(ranks[3][("c",)], wanted["c"])


def test_strided_and_tied_tensors_of_a_torch_file_take_the_mean_too(tmp_path: Path) -> None:
    models = []
    for number in range(2):
        flat, conv = torch.randn(30), torch.randn(4, 3, 2, 5).to(memory_format=torch.channels_last)
        tied = torch.randn(3, 4)
        model = {"view": flat[5:25].view(4, 5), "turned": torch.randn(6, 7).t(), "conv": conv, "embed": tied, "head": tied}
        torch.save({"state_dict": model, "epoch": number}, tmp_path / f"{number}.pt")
        models.append(model)
    warmkit.soup([tmp_path / "0.pt", tmp_path / "1.pt"], tmp_path / "out", allow_pickle=True, container="same")
    found = torch.load(tmp_path / "out" / "0.pt", weights_only=True)
    assert found["epoch"] == 0
    assert found["state_dict"]["conv"].is_contiguous(memory_format=torch.channels_last)
    assert same(found["state_dict"], mean(*models))


def test_a_view_with_gaps_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for number in range(2):
        torch.save({"thin": torch.randn(8, 8)[:, ::2], "b": torch.randn(2)}, tmp_path / f"{number}.pt")
    with pytest.raises(UnsupportedError, match="'thin' lies in no range of bytes of its own"):
        warmkit.soup([tmp_path / "0.pt", tmp_path / "1.pt"], tmp_path / "out", allow_pickle=True, container="same")
    assert not (tmp_path / "out").exists()


def test_a_head_that_a_config_ties_takes_the_numbers_of_the_embedding(tmp_path: Path) -> None:
    inputs = []
    for number in range(2):
        tensors = {"model.embed_tokens.weight": torch.randn(8, 4), "model.norm.weight": torch.randn(4)}
        inputs.append({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
        save(tmp_path / str(number), inputs[-1], {"model_type": "llama", "tie_word_embeddings": True, "vocab_size": 8})
    warmkit.soup([tmp_path / "0", tmp_path / "1"], tmp_path / "out", container="same")
    assert same(load_file(tmp_path / "out" / "model.safetensors"), mean(*inputs))


# ---- other commands ------------------------------------------------------------------------------------------------------


def test_a_recipe_and_a_greedy_soup_write_copies_too(tmp_path: Path, run: Run) -> None:
    run_of_ranks = DATA / "rank_files" / "run"
    models = [str(run_of_ranks / f"global_step_{number}") for number in (1, 2)]
    recipe = {
        "merge": {"method": "uniform", "models": models, "allow_pickle": True},
        "output": {"path": str(tmp_path / "by-recipe"), "container": "same"},
    }
    (tmp_path / "merge.yaml").write_text(json.dumps(recipe))
    assert run("merge", tmp_path / "merge.yaml").returncode == 0
    score = f'{sys.executable} -c "import sys, os; print(len(os.listdir(sys.argv[1])))" {{}}'
    done = run("soup", "--greedy", "--score", score, *models, "--as", "same", "--allow-pickle", "-o", tmp_path / "greedy")
    assert done.returncode == 0, done.stderr
    for out in ("by-recipe", "greedy"):
        assert (tmp_path / out / "model_world_size_2_rank_1.pt").is_file()
        assert warmkit.verify(tmp_path / out).tensors


def test_several_averages_are_copies_of_one_checkpoint(tmp_path: Path) -> None:
    run, out = DATA / "rank_files" / "run", tmp_path / "out"
    warmkit.average(run, out, schedule=["uniform", "ema"], allow_pickle=True, container="same")
    found = {name: tensors_of(out / name, allow_pickle=True) for name in ("uniform", "ema")}
    assert same(found["uniform"], mean(*(tensors_of(run / f"global_step_{number}", allow_pickle=True) for number in (1, 2, 3))))
    assert not same(found["uniform"], found["ema"])
    warmkit.average(run, out, schedule=["uniform", "ema"], allow_pickle=True, container="same", force=True)
    warmkit.verify(out)


# ---- refusals ------------------------------------------------------------------------------------------------------------


def run_of(folder: Path, **states: Any) -> Path:
    """Make a run of three checkpoints as transformers' Trainer names them."""
    for number in range(3):
        each = save(folder / f"checkpoint-{number}", weights(number))
        torch.save(states, each / "optimizer.pt")
    return folder


def adam(value: float = 1.0) -> dict[int, Any]:
    return {0: {"step": torch.tensor(3.0), "exp_avg": torch.full((4,), value), "exp_avg_sq": torch.full((4,), value)}}


REFUSED: list[tuple[dict[str, Any], type[WarmkitError], str]] = [
    ({"container": "torch"}, UsageError, "container must be one of safetensors, same"),
    ({"optimizer": "average"}, UsageError, "optimizer is for a copy of a trainer's checkpoint"),
    ({"container": "same", "optimizer": "sum"}, UsageError, "optimizer must be one of average, keep"),
    ({"container": "same", "dtype": "bfloat16"}, UsageError, "--dtype would change"),
    ({"container": "same", "max_shard_size": "1MB"}, UsageError, "--max-shard-size would change"),
    ({"container": "same", "vocabulary": "union"}, UsageError, "vocabulary and heads would change"),
    (
        {"container": "same", "optimizer": "average", "schedule": "manual", "coefficients": [2, -2, 1]},
        UsageError,
        "must not become negative",
    ),
    ({"container": "same", "optimizer": "average", "schedule": ["ema", "uniform"]}, UsageError, "is of one average"),
]


@pytest.mark.parametrize(("options", "kind", "words"), REFUSED, ids=[each[2] for each in REFUSED])
def test_options_that_do_not_fit_are_refused(
    options: dict[str, Any], kind: type[WarmkitError], words: str, tmp_path: Path
) -> None:
    run = run_of(tmp_path / "run", state=adam())
    with pytest.raises(kind, match=words):
        warmkit.average(run, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_methods_without_one_weight_average_no_optimizer(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", state=adam())
    models = [run / "checkpoint-1", run / "checkpoint-2"]
    with pytest.raises(UsageError, match="slerp gives a checkpoint no one weight"):
        warmkit.merge(models, tmp_path / "out", init=run / "checkpoint-0", container="same", optimizer="average")
    warmkit.merge(models, tmp_path / "out", init=run / "checkpoint-0", container="same", optimizer="keep")
    assert (tmp_path / "out" / "optimizer.pt").read_bytes() == (models[0] / "optimizer.pt").read_bytes()


def test_states_that_are_no_moments_are_refused_by_name(tmp_path: Path) -> None:
    quantised = {0: {"step": torch.tensor(3.0), "state1": torch.zeros(4, dtype=torch.uint8)}}
    run = run_of(tmp_path / "run", state=quantised)
    with pytest.raises(UnsupportedError, match=r"the optimizer's state1 \(uint8\) is no moment"):
        warmkit.average(run, tmp_path / "out", container="same", optimizer="average")


def test_an_optimizer_of_another_shape_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", state=adam())
    torch.save({"state": {0: {"exp_avg": torch.ones(5), "exp_avg_sq": torch.ones(4)}}}, run / "checkpoint-1" / "optimizer.pt")
    with pytest.raises(FormatError, match=r"checkpoint-1: its optimizer's optimizer.pt.state.0.exp_avg is not as in"):
        warmkit.average(run, tmp_path / "out", container="same", optimizer="average")


def test_a_state_in_the_files_of_the_weights_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the optimizer's state lies in the files of the weights: --optimizer average"):
        warmkit.soup([DATA / "zero" / "stage2-float32"] * 2, tmp_path / "out", allow_pickle=True, container="same")
    tar = tmp_path / "last.pth.tar"  # as timm calls it
    torch.save({"state_dict": weights(0), "optimizer": {"state": adam()}}, tar)
    with pytest.raises(UsageError, match="the optimizer's state lies in the files of the weights: --optimizer average"):
        warmkit.soup([tar, tar], tmp_path / "out", allow_pickle=True, container="same")


def test_weights_that_an_optimizer_holds_once_more_are_never_left_as_they_were(tmp_path: Path) -> None:
    zero = DATA / "zero" / "stage2-float32"
    run = tmp_path / "checkpoint-2"
    shutil.copytree(zero, run)
    save_file(tensors_of(zero, allow_pickle=True), run / "model.safetensors")  # whole weights beside DeepSpeed's
    for optimizer in ("average", "keep"):
        with pytest.raises(UsageError, match="holds the weights once more, from which training would go on; give global_step2"):
            warmkit.soup([run, run], tmp_path / "out", container="same", optimizer=optimizer)
    masters = {"state": adam(), "fp32_from_fp16_params": [[torch.ones(4)]]}
    apex = run_of(tmp_path / "apex", **masters)
    for optimizer in ("average", "keep"):
        with pytest.raises(UnsupportedError, match=r"a copy of the weights \(fp32_from_fp16_params\)"):
            warmkit.average(apex, tmp_path / "out", container="same", optimizer=optimizer)
    assert not (tmp_path / "out").exists()


def test_a_state_dict_that_was_not_chosen_is_said_to_stay(tmp_path: Path) -> None:
    timm = DATA / "averages_inside" / "timm.pth.tar"
    how: dict[str, Any] = {"allow_pickle": True, "container": "same", "optimizer": "keep", "state_dict": "state_dict_ema"}
    result = warmkit.soup([timm, timm], tmp_path / "out", **how)
    assert any("only state_dict_ema takes the result; other state dicts stay" in note for note in result.notes)


def test_an_adapter_is_copied_into_no_container(tmp_path: Path) -> None:
    models = [DATA / "rank_files" / "lora1" / "global_step_2"] * 2
    with pytest.raises(UsageError, match="an adapter on its base, of which --as same writes no copy"):
        warmkit.soup(models, tmp_path / "out", allow_pickle=True, container="same")


def test_what_was_left_aside_is_said(tmp_path: Path, run: Run) -> None:
    folder = run_of(tmp_path / "run", state=adam())
    (folder / "checkpoint-2" / "trainer_state.json").write_text('{"global_step": 2}')
    done = run("average", folder, "-o", tmp_path / "out", "--as", "same")
    assert done.returncode == 0, done.stderr
    assert "left aside optimizer.pt (--optimizer average, or keep, for the optimizer's state)" in " ".join(done.stderr.split())
    assert (tmp_path / "out" / "trainer_state.json").is_file()
    assert not (tmp_path / "out" / "optimizer.pt").exists()
