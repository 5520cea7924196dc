"""Every kind of bad input gets a clear error, and the destination is never touched."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import CONFIG, Family, Run, save, weights

Refused = Callable[..., str]


def merge(family: Family, *more: object) -> tuple[object, ...]:
    return ("merge", "--init", family.init, family.a, family.b, "-o", "out", *more)


def replace(path: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(path / "model.safetensors")
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    save_file(tensors, path / "model.safetensors")


# ---- tensors that do not correspond -----------------------------------------------------------------------------------


def test_every_mismatch_of_every_model_is_listed_at_once(family: Family, refused: Refused) -> None:
    replace(family.a, model__norm__weight=None, v_head=torch.zeros(1), lm_head__weight=torch.zeros(1, 8))
    replace(family.b, model__norm__weight=torch.zeros(8, dtype=torch.int64))
    said = refused(*merge(family))
    assert f"{family.a} does not fit: missing tensor 'model.norm.weight'" in said
    assert "extra tensor 'v_head'" in said
    assert f"tensor 'lm_head.weight' has shape [1, 8], {family.init} has [40, 8]" in said
    assert f"{family.b} does not fit: tensor 'model.norm.weight' is I64" in said


def test_a_shape_that_would_broadcast_is_refused(family: Family, refused: Refused) -> None:
    replace(family.a, model__norm__weight=torch.zeros(1))
    assert "shape [1]" in refused(*merge(family))


def test_a_padded_vocabulary_says_what_to_do(family: Family, refused: Refused) -> None:
    replace(family.a, lm_head__weight=torch.zeros(48, 8))
    assert "--vocabulary" in refused(*merge(family))


def test_integer_buffers_must_agree(family: Family, refused: Refused) -> None:
    for number, path in enumerate((family.init, family.a, family.b)):
        replace(path, position_ids=torch.arange(5) + number // 2)
    assert "tensor 'position_ids' (int64) differs" in refused(*merge(family))


# ---- files that lie -----------------------------------------------------------------------------------------------------


def lying(path: Path, change: Callable[[bytes], bytes]) -> None:
    file = path / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))


def rewritten(change: Callable[[dict], dict]) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.dumps(change(json.loads(content[8 : 8 + length]))).encode()
        return struct.pack("<Q", len(header)) + header + content[8 + length :]

    return apply


def shifted(header: dict) -> dict:
    begin, end = header["model.norm.weight"]["data_offsets"]
    return {**header, "model.norm.weight": {**header["model.norm.weight"], "data_offsets": [begin - 4, end - 4]}}


def with_entry(**changes: object) -> Callable[[bytes], bytes]:
    return rewritten(lambda header: {**header, "lm_head.weight": {**header["lm_head.weight"], **changes}})


TWICE = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
LIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda content: content[:-10], "truncated"),
    "longer than its header": (lambda content: content + b"x", "longer than its header"),
    "empty": (lambda content: b"", "0 bytes"),
    "header length beyond the file": (lambda content: struct.pack("<Q", 1 << 40) + content[8:], "its header claims"),
    "header that is not JSON": (lambda content: content[:8] + b"{" + b"#" * 20 + content[29:], "expected JSON"),
    "header that is a list": (lambda content: struct.pack("<Q", 2) + b"[]" + content[8:], "expected a JSON header"),
    "offsets that overlap": (rewritten(shifted), "overlaps"),
    "offsets that leave a gap": (with_entry(data_offsets=[4, 1284]), "leaves a gap"),
    "offsets that disagree with the shape": (with_entry(shape=[40, 9]), "its offsets give"),
    "negative offsets": (with_entry(data_offsets=[-1280, 0]), "lists of natural numbers"),
    "unknown type": (with_entry(dtype="F31"), "unknown dtype 'F31'; did you mean"),
    "fp8": (with_entry(dtype="F8_E4M3", shape=[40, 32]), "F8_E4M3, a quantised type"),
    "shape of strings": (with_entry(shape=["40", "8"]), "lists of natural numbers"),
    "duplicate names": (lambda content: struct.pack("<Q", len(TWICE)) + TWICE + b"\0", "duplicate names"),
    "text that is not UTF-8": (lambda content: struct.pack("<Q", 4) + b'{"\xff"' + content[12:], "expected JSON"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_named(lie: str, family: Family, refused: Refused) -> None:
    change, expected = LIES[lie]
    lying(family.b, change)
    said = refused(*merge(family))
    assert str(family.b / "model.safetensors") in said
    assert expected in said


# ---- indexes -----------------------------------------------------------------------------------------------------------


def indexed(path: Path, mapping: dict[str, str]) -> None:
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))


@pytest.mark.parametrize("target", ["../a/model.safetensors", "/etc/passwd", "nested/../../a/model.safetensors"])
def test_an_index_that_leaves_its_directory_is_refused(target: str, family: Family, refused: Refused) -> None:
    (family.b / "model.safetensors").unlink()
    indexed(family.b, {"lm_head.weight": target})
    assert "points outside its directory" in refused(*merge(family))


@pytest.mark.parametrize("through", ["file", "folder"])
def test_a_link_that_leaves_the_directory_is_refused(through: str, family: Family, refused: Refused) -> None:
    (family.b / "model.safetensors").unlink()
    if through == "file":
        (family.b / "x.safetensors").symlink_to(family.a / "model.safetensors")
        indexed(family.b, dict.fromkeys(weights(0), "x.safetensors"))
    else:
        (family.b / "sub").symlink_to(family.a)
        indexed(family.b, dict.fromkeys(weights(0), "sub/model.safetensors"))
    assert "leaves the directory" in refused(*merge(family))


def test_an_index_that_points_nowhere_is_refused(family: Family, refused: Refused) -> None:
    (family.b / "model.safetensors").unlink()
    indexed(family.b, {"lm_head.weight": "gone.safetensors"})
    assert "'gone.safetensors', which is not there" in refused(*merge(family))


def test_an_index_that_disagrees_with_its_files_is_refused(tmp_path: Path, family: Family, refused: Refused) -> None:
    sharded = save(tmp_path / "s", weights(2), shards=2)
    index = sharded / "model.safetensors.index.json"
    mapping = json.loads(index.read_text())["weight_map"]
    first, second = sorted(set(mapping.values()))
    indexed(sharded, {**{k: v for k, v in mapping.items() if k != "lm_head.weight"}, "ghost": first})
    said = refused("merge", "--init", family.init, family.a, sharded, "-o", "out")
    assert "'ghost' is not in" in said
    assert "'lm_head.weight' is in" in said
    indexed(sharded, {k: first if v == second else second for k, v in mapping.items()})
    assert "the index says" in refused("merge", "--init", family.init, family.a, sharded, "-o", "out")


def test_two_versions_of_the_weights_are_refused(family: Family, refused: Refused) -> None:
    indexed(family.b, dict.fromkeys(weights(0), "model-00001-of-00001.safetensors"))
    assert "holds both" in refused(*merge(family))


# ---- kinds of checkpoint ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_with_a_way_out(name: str, family: Family, refused: Refused) -> None:
    (family.b / "model.safetensors").rename(family.b / name)
    said = refused(*merge(family))
    assert "only pickle files" in said
    assert "--allow-pickle" in said


def test_adapters_of_other_kinds_are_refused_by_name(family: Family, refused: Refused) -> None:
    (family.b / "model.safetensors").rename(family.b / "adapter_model.safetensors")
    (family.b / "adapter_config.json").write_text('{"peft_type": "RANDLORA"}')
    assert "an adapter of the kind 'RANDLORA', which is not read" in refused(*merge(family))


def test_an_adapter_that_fits_no_base_is_refused(family: Family, refused: Refused) -> None:
    (family.b / "model.safetensors").rename(family.b / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "../nowhere"}
    (family.b / "adapter_config.json").write_text(json.dumps(config))
    said = refused(*merge(family))
    assert "../nowhere: no such file or directory" in said
    assert "give it as BASE+" in said
    assert "is no path and no repository" in refused("soup", f"{family.init}+{family.init}/nowhere", "-o", "out")


def test_packed_weights_are_refused_by_name(family: Family, refused: Refused) -> None:
    (family.b / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": {"quant_method": "hqq"}}))
    assert "quantised weights (hqq" in refused(*merge(family))


def test_packed_weights_are_refused_by_their_tensors(family: Family, refused: Refused) -> None:
    replace(family.b, model__layers__0__q__qweight=torch.zeros(4, dtype=torch.int32))
    assert "'model.layers.0.q.qweight'" in refused(*merge(family))


def test_a_path_that_is_not_there_is_named(family: Family, refused: Refused) -> None:
    said = refused("merge", "--init", family.init, family.a, "no such model", "-o", "out")
    assert "no such model: no such file or directory" in said


# ---- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("method", ["lerp", "slerp", "model-stock"])
def test_a_value_that_is_not_finite_is_named(value: float, method: str, family: Family, refused: Refused) -> None:
    bad = weights(2)["model.layers.1.mlp.weight"]
    bad[3, 4] = value
    replace(family.b, model__layers__1__mlp__weight=bad)
    said = refused(*merge(family, "--method", method))
    assert f"tensor 'model.layers.1.mlp.weight' of {family.b} holds NaN or infinity" in said


def test_nonfinite_values_pass_when_asked(family: Family, run: Run, tmp_path: Path) -> None:
    bad = weights(2)["model.norm.weight"]
    bad[3] = float("inf")
    replace(family.b, model__norm__weight=bad)
    done = run(*merge(family, "--method", "lerp", "--allow-nonfinite"))
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"][3] == float("inf")


def test_a_value_that_is_not_finite_is_found_in_a_model_of_no_share(family: Family, refused: Refused) -> None:
    bad = weights(2)["model.norm.weight"]
    bad[3] = float("nan")
    replace(family.b, model__norm__weight=bad)
    assert f"of {family.b}" in refused(*merge(family, "--method", "lerp", "--lambda", 0))


def test_a_result_too_large_for_its_type_is_an_error(family: Family, refused: Refused) -> None:
    for path in (family.a, family.b):
        replace(path, model__norm__weight=torch.full((8,), 70000.0))
    said = refused(*merge(family, "--method", "lerp", "--dtype", "float16"))
    assert "tensor 'model.norm.weight': the merge exceeds 65504" in said


def test_antiparallel_task_vectors_name_their_group(family: Family, refused: Refused, run: Run) -> None:
    init, a = load_file(family.init / "model.safetensors"), load_file(family.a / "model.safetensors")
    mirrored = {name: 2 * init[name] - a[name] if "layers.1." in name else a[name] for name in init}
    save_file(mirrored, family.b / "model.safetensors")
    assert "group 'model.layers.1': task vectors point in opposite directions" in refused(*merge(family))
    assert run(*merge(family, "--antiparallel", "lerp")).returncode == 0


# ---- configs and tokenizers ------------------------------------------------------------------------------------------


def test_other_architectures_are_refused(family: Family, refused: Refused) -> None:
    (family.b / "config.json").write_text(json.dumps({**CONFIG, "model_type": "qwen2", "num_attention_heads": 2}))
    said = refused(*merge(family))
    assert "another architecture" in said
    assert "model_type is 'qwen2'" in said
    assert "num_attention_heads" in said


def test_harmless_differences_are_notes(family: Family, run: Run) -> None:
    (family.b / "config.json").write_text(json.dumps({**CONFIG, "max_position_embeddings": 64, "transformers_version": "0"}))
    done = run(*merge(family))
    assert done.returncode == 0
    assert "note:" in done.stderr
    assert "max_position_embeddings = 64" in done.stderr
    assert "transformers_version" not in done.stderr


def tokenizer(tokens: list[str], **more: object) -> str:
    return json.dumps({"model": {"type": "BPE", "vocab": {t: n for n, t in enumerate(tokens)}, **more}, "added_tokens": []})


def test_other_vocabularies_are_refused(family: Family, refused: Refused, run: Run) -> None:
    (family.init / "tokenizer.json").write_text(tokenizer(["a", "b", "c"]))
    (family.b / "tokenizer.json").write_text(tokenizer(["a", "c", "b"]))
    assert "tokenizer.json has another vocabulary" in refused(*merge(family))
    (family.b / "tokenizer.json").write_text(tokenizer(["a", "b", "c"], dropout=0.1))
    assert run(*merge(family)).returncode == 0


# ---- destinations ----------------------------------------------------------------------------------------------------


def test_an_existing_destination_stays(family: Family, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    done = run(*merge(family))
    assert (done.returncode, "already exists" in done.stderr) == (1, True)
    done = run(*merge(family, "--force"))
    assert (done.returncode, "diary.txt: is not part of a checkpoint" in " ".join(done.stderr.split())) == (1, True), (
        done.stderr
    )
    assert (tmp_path / "out" / "diary.txt").read_text() == "mine"


def test_force_replaces_a_checkpoint_whole(family: Family, run: Run, tmp_path: Path) -> None:
    assert run(*merge(family, "--max-shard-size", "2KB")).returncode == 0
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert run(*merge(family, "--force")).returncode == 0
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["model.safetensors"]
    assert not list(tmp_path.glob(".out*"))


def test_a_failed_force_leaves_the_old_result(family: Family, run: Run, tmp_path: Path) -> None:
    assert run(*merge(family)).returncode == 0
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    bad = weights(2)["model.norm.weight"]
    bad[0] = float("nan")
    replace(family.b, model__norm__weight=bad)
    assert run(*merge(family, "--force")).returncode == 1
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_a_destination_that_touches_an_input_is_refused(family: Family, run: Run, tmp_path: Path) -> None:
    for output, expected in (
        (family.a, "is an input"),
        (family.a / "x", "lies inside the input"),
        (tmp_path, "holds the input"),
    ):
        for force in ((), ("--force",)):
            done = run("merge", "--init", family.init, family.a, family.b, "-o", output, *force)
            assert (done.returncode, expected in done.stderr) == (1, True), done.stderr
    assert sorted(path.name for path in family.a.iterdir()) == ["config.json", "model.safetensors"]


def test_a_link_to_an_input_is_no_destination(family: Family, run: Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(family.a)
    done = run("merge", "--init", family.init, family.a, family.b, "-o", "link", "--force")
    assert (done.returncode, "is an input" in done.stderr) == (1, True)


# ---- usage -----------------------------------------------------------------------------------------------------------

USAGE: dict[str, tuple[list[object], str]] = {
    "unknown method": (["--method", "slrp"], "unknown method 'slrp'; did you mean 'slerp'?"),
    "unknown option": (["--etta", "0.3"], "warmkit merge has no --etta; did you mean --eta?"),
    "unknown dtype": (["--dtype", "bfloat"], "unknown dtype 'bfloat'; did you mean 'bfloat16'?"),
    "unknown granularity": (["--granularity", "layers"], "did you mean 'layer'?"),
    "unknown device": (["--device", "gpu"], "unknown device 'gpu'; did you mean 'cuda'?"),
    "eta not finite": (["--eta", "nan"], "eta must be a finite number"),
    "eta no number": (["--eta", "0.3,x"], "--eta: expected numbers"),
    "eta twice": (["--eta", "0.3,0.30"], "different etas"),
    "lambda not finite": (["--lambda", "inf"], "lambda must be a finite number"),
    "too few coefficients": (["--coefficients", "1"], "expected 2 coefficients, one per model, found 1"),
    "coefficients that sum to 0": (["--method", "lerp", "--coefficients", "1,-1"], "sum to 0"),
    "coefficients of uniform": (["--method", "uniform", "--lambda", "0.3"], "use lerp"),
    "negative share of an arc": (["--coefficients", "1.5,-0.5"], "cannot be negative"),
    "both mixes": (["--lambda", "0.3", "--coefficients", "1,1"], "give one of them"),
    "no threads": (["--threads", "0"], "threads must be at least 1"),
    "shard size": (["--max-shard-size", "lots"], "expected a size such as 5GB"),
}


@pytest.mark.parametrize("mistake", USAGE)
def test_a_usage_error_exits_with_2_and_says_what_is_valid(mistake: str, family: Family, refused: Refused) -> None:
    arguments, expected = USAGE[mistake]
    assert expected in refused(*merge(family, *arguments), code=2)


def test_a_method_that_needs_an_init_says_so(family: Family, refused: Refused) -> None:
    assert "slerp needs --init" in refused("merge", family.a, family.b, "-o", "out", code=2)
    assert "needs --init" in refused("merge", "--method", "lerp", "--eta", "0.5", family.a, family.b, "-o", "out", code=2)


def test_mu_must_be_a_share(family: Family, refused: Refused) -> None:
    assert "mu must be between 0 and 1" in refused("ema", "--mu", "1.5", family.a, family.b, "-o", "out", code=2)


def test_errors_are_json_when_results_are(family: Family, run: Run) -> None:
    done = run(*merge(family, "--method", "slrp", "--json"))
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["kind"] == "UsageError"
