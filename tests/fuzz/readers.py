"""What is damaged, what reads it, and what its own reference reader says."""

from __future__ import annotations

import io
import json
import logging
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.mutations import WORDS, YAML_WORDS, damaged, rearranged
from warmkit.layouts.opening import open_checkpoint
from warmkit.sources.files import Files

QUANTISED = Path(__file__).parents[1] / "data" / "quantised" / "ct-int4-zero"
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False, "rope_theta": 1e4}
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {r"layers\.[01]\.q": 2}, "alpha_pattern": {"q": 4.0}}
TOKENIZER = {
    "added_tokens": [{"id": 7, "content": "<a>", "special": True}],
    "model": {"type": "BPE", "vocab": {f"t{n}": n for n in range(7)}, "merges": [["a", "b"]]},
    "post_processor": {"type": "TemplateProcessing", "special_tokens": {"<a>": {"id": "<a>", "ids": [7], "tokens": ["<a>"]}}},
}
RECIPE = b"""merge:
  models: &m [runs/a, runs/b]
  init: runs/sft
  method: slerp
  eta: [0.5, 1.0]
  only: *m
output:
  path: out
  max_shard_size: 5GB
"""
MERGEKIT = b"""models:
  - model: a
    parameters: {weight: [0, 0.5, 1], density: 0.5}
  - model: b
    parameters:
      weight: {filter: mlp, value: 0.3}
base_model: base
merge_method: ties
parameters: {normalize: true}
dtype: bfloat16
"""
ROWS = b"""{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
{"prompt": [{"role": "user", "content": "hi"}], "chosen": "a", "rejected": "b"}

{"prompt": "x", "chosen": "y", "rejected": "z", "more": [1, null]}
"""
ANSWER = b'HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-65535/70000\r\nETag: "x"\r\nContent-Length: 65536\r\n\r\n' + bytes(
    65536
)

Seen = Any

SHARES = {
    "safetensors": 2.0,
    "HuggingFaceStorageWriter": 0.5,
    "index": 1.0,
    "config": 1.0,
    "adapter config": 1.0,
    "adapter": 1.0,
    "quantised": 1.0,
    "GGUF": 0.1,
    "quantised config": 1.0,
    "torch.save": 2.0,
    "FSDP rank files": 0.3,
    "legacy torch.save": 0.5,
    "torch.distributed.checkpoint": 2.0,
    "Megatron-Core torch_dist": 0.3,
    "DeepSpeed ZeRO": 0.5,
    "tokenizer": 1.0,
    "tokenizer config": 1.0,
    "manifest": 0.5,
    "recipe": 1.0,
    "mergekit": 1.0,
    "rows": 1.0,
    "score": 0.02,
    "http ranges": 0.3,
}
"""How often each reader is chosen; every name has its reader below."""


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        file: What is damaged, in a folder of its own.
        damage: Makes another content of the right one.
        read: Returns what warmkit says, in a form that can be compared.
        reference: Returns what the file's own reader says; None where there is none that reads it safely. Raises for what it
            refuses.
    """

    file: Path
    damage: Callable[[random.Random, bytes], bytes]
    read: Callable[[], Seen]
    reference: Callable[[], Seen] | None = None


def bytes_of(checkpoint: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return type (`float32`), shape and bytes of every tensor, by its name; a reference reader returns the same."""
    found = {}
    with Files() as files:
        for name, entry in checkpoint.entries.items():
            buffer = bytearray(entry.nbytes)
            entry.read(files, 0, memoryview(buffer))
            found[name] = entry.dtype.torch_name, entry.shape, bytes(buffer)
    return found


def as_bytes(tensors: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    import torch

    flat = {name: each.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, each in tensors.items()}
    return {name: (str(each.dtype).removeprefix("torch."), tuple(each.shape), flat[name]) for name, each in tensors.items()}


def plain(words: list[bytes]) -> Callable[[random.Random, bytes], bytes]:
    return lambda draw, content: damaged(draw, content, words)


def json_too(draw: random.Random, content: bytes) -> bytes:
    return rearranged(draw, content) if draw.random() < 0.6 else damaged(draw, content, WORDS)


def in_header(draw: random.Random, content: bytes) -> bytes:
    """Damage the header of a safetensors file, mostly with a length that stays true."""
    if draw.random() < 0.3:
        return damaged(draw, content, WORDS)
    size = int.from_bytes(content[:8], "little")
    header = json_too(draw, content[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def in_record(draw: random.Random, content: bytes) -> bytes:
    """Damage a torch file, mostly its pickle alone, with checksums that stay true."""
    if draw.random() < 0.3:
        return damaged(draw, content, WORDS)
    result, commands = io.BytesIO(), [b"b", b"R", b"s", b"u", b"q\x00", b"\x85"]
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(result, "w") as after:
        for name in before.namelist():
            record = before.read(name)
            after.writestr(name, damaged(draw, record, commands) if name.endswith(".pkl") else record)
    return result.getvalue()


def readers(folder: Path) -> dict[str, Reader]:
    """Write one right file of every kind, and return what reads them, by the names of `SHARES`."""
    found = {**_weights(folder), **_pickles(folder), **_small(folder), **_texts(folder), "http ranges": _http(folder)}
    assert found.keys() == SHARES.keys(), f"a share or a reader is missing: {sorted(found.keys() ^ SHARES.keys())}"
    return found


def _place(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def _tensors() -> dict[str, Any]:
    import torch

    return {
        "model.embed_tokens.weight": torch.arange(32.0).reshape(8, 4),
        "model.layers.0.q.weight": torch.arange(16.0).reshape(4, 4).bfloat16(),
        "model.step": torch.tensor(3),
        "model.empty": torch.zeros(0, 3),
    }


def _weights(folder: Path) -> dict[str, Reader]:
    import torch
    from safetensors.torch import load_file, save, save_file

    single = _place(folder / "single", "model.safetensors", save(_tensors(), {"format": "pt"}))
    sharded, adapter, names = folder / "sharded", folder / "adapter", list(_tensors())
    mapping = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    sharded.mkdir()
    for file in set(mapping.values()):
        save_file({name: _tensors()[name] for name in names if mapping[name] == file}, sharded / file)
    index = _place(sharded, "model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": mapping}).encode())
    shard = _shards(folder / "shards")
    config = _place(folder / "configured", "config.json", json.dumps(CONFIG).encode())
    _place(folder / "configured", "model.safetensors", save(_tensors()))
    factors = {"A": torch.ones(2, 4), "B": torch.ones(4, 2)}
    named = {f"base_model.model.model.layers.0.q.lora_{part}.weight": each for part, each in factors.items()}
    written = _place(adapter, "adapter_model.safetensors", save(named))
    adapter_config = _place(adapter, "adapter_config.json", json.dumps(ADAPTER).encode())
    pair = f"{folder / 'configured'}+{adapter}"

    def ranks() -> Seen:
        from warmkit.layouts.adapter_config import read_config

        open_checkpoint(pair)
        read = read_config(adapter)
        return read.rank, read.alpha, read.rank_pattern

    def said() -> Seen:
        content = json.loads(adapter_config.read_bytes())
        return content["r"], float(content["lora_alpha"]), content.get("rank_pattern") or {}

    coded = shutil.copytree(QUANTISED, folder / "quantised")
    (folder / "gguf").mkdir()
    blocks = shutil.copy(QUANTISED.parent / "gguf" / "qwen3.gguf", folder / "gguf" / "model.gguf")

    return {
        "safetensors": Reader(
            single, in_header, lambda: bytes_of(open_checkpoint(single)), lambda: as_bytes(load_file(single))
        ),
        "HuggingFaceStorageWriter": Reader(
            shard, in_header, lambda: bytes_of(open_checkpoint(shard.parent)), lambda: _whole(shard.parent)
        ),
        "index": Reader(index, json_too, lambda: bytes_of(open_checkpoint(sharded)), lambda: as_bytes(_tensors())),
        "config": Reader(
            config, json_too, lambda: open_checkpoint(config.parent).config, lambda: json.loads(config.read_bytes())
        ),
        "adapter config": Reader(adapter_config, json_too, ranks, said),
        "adapter": Reader(written, in_header, lambda: bytes_of(open_checkpoint(pair)) and None),
        "quantised": Reader(coded / "model.safetensors", in_header, lambda: bytes_of(open_checkpoint(coded)) and None),
        "GGUF": Reader(blocks, plain(WORDS), lambda: bytes_of(open_checkpoint(blocks)) and None),
        "quantised config": Reader(coded / "config.json", json_too, lambda: bytes_of(open_checkpoint(coded)) and None),
    }


def _shards(folder: Path) -> Path:
    """Return one of two shards, as two processes leave them: a matrix cut by rows, and a tensor in the second alone."""
    from safetensors.torch import save

    matrix, step = (_tensors()[name] for name in ("model.embed_tokens.weight", "model.step"))
    parts: list[dict[str, Any]] = [{"w": matrix[:5]}, {"w": matrix[5:], "step": step}]
    for number, (held, first) in enumerate(zip(parts, (0, 5)), 1):
        said = {name: {"saved_offsets": [first, 0] if name == "w" else []} for name in held}
        content = save({name: each.clone() for name, each in held.items()}, {"DCP_SHARDING_INFO": json.dumps(said)})
        path = _place(folder, f"shard-{number:05d}-model-00001-of-00001.safetensors", content)
    return path


def _whole(folder: Path) -> Seen:
    """Return what torch's own reader makes of shards."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    found: dict[str, Any] = {}
    planner = _EmptyStateDictLoadPlanner()
    _load_state_dict(found, storage_reader=HuggingFaceStorageReader(str(folder)), planner=planner, no_dist=True)
    return as_bytes(found)


def _pickles(folder: Path) -> dict[str, Reader]:
    import warnings

    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.tensor import Shard

    from tests.unit.formats.ranks import save_ranks

    content = {"state_dict": {**_tensors(), "t": torch.arange(6.0).reshape(2, 3).t()}, "epoch": 3, "lr": [0.1, None]}
    whole, old = folder / "torch" / "model.pt", folder / "legacy" / "model.pt"
    for file, new in ((whole, True), (old, False)):
        file.parent.mkdir()
        torch.save(content, file, _use_new_zipfile_serialization=new)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": _tensors(), "epoch": 1}, checkpoint_id=folder / "dcp")

    def torch_says() -> Seen:
        found = torch.load(whole, weights_only=True)["state_dict"]
        return as_bytes({str(name): tensor for name, tensor in found.items()})  # a number as a key is a name

    parts = {"w": (torch.arange(15.0).reshape(5, 3), [Shard(0)]), "b": (torch.arange(4.0).bfloat16(), [Shard(0)])}
    ranks = save_ranks(folder / "ranks", (2,), parts)

    logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)  # that the ranks' groups are not there

    def torch_joins() -> Seen:
        files = [torch.load(ranks / f"model_world_size_2_rank_{rank}.pt", weights_only=True) for rank in range(2)]
        assert files[0].keys() == files[1].keys()
        return as_bytes({name: _joined([each[name] for each in files]) for name in files[0]})

    shutil.copytree(Path(__file__).parents[1] / "data" / "zero" / "stage2-float32", folder / "zero")
    megatron = shutil.copytree(Path(__file__).parents[1] / "data" / "megatron" / "tensor" / "iter_0000004", folder / "megatron")
    part = folder / "zero" / "global_step2" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"

    def opened(path: Path) -> Seen:
        return bytes_of(open_checkpoint(path, allow_pickle=True))

    commands = [b"b", b"R", b"s", b"u", b"q\x00", b"\x93", b"h\x01", b"j\x01\x00\x00\x00", b"\x8b\xff\xff\xff\x7f", b"("]
    return {
        "torch.save": Reader(whole, in_record, lambda: opened(whole), torch_says),
        "FSDP rank files": Reader(ranks / "model_world_size_2_rank_1.pt", in_record, lambda: opened(ranks), torch_joins),
        "legacy torch.save": Reader(old, plain(commands), lambda: opened(old)),
        "torch.distributed.checkpoint": Reader(
            folder / "dcp" / ".metadata", plain(commands), lambda: opened(folder / "dcp") and None
        ),
        "Megatron-Core torch_dist": Reader(megatron / ".metadata", plain(commands), lambda: opened(megatron) and None),
        "DeepSpeed ZeRO": Reader(part, in_record, lambda: opened(folder / "zero"), lambda: _united(folder / "zero")),
    }


def _joined(parts: list[Any]) -> Any:
    """Return the tensor whose parts two ranks hold, where the parts are of the sizes that torch cuts."""
    import torch

    one, two = parts
    assert one.shape == two.shape
    assert one.dtype == two.dtype == one._local_tensor.dtype == two._local_tensor.dtype
    assert one.placements == two.placements
    (placement,) = one.placements
    locals_ = [one._local_tensor, two._local_tensor]
    expected = torch.empty(one.shape, device="meta").chunk(2, placement.dim)
    assert [each.shape for each in locals_] == [each.shape for each in expected]
    return torch.cat(locals_, placement.dim)


def _united(run: Path) -> Seen:
    """Put a checkpoint of ZeRO, stage 2, together as DeepSpeed's own script does."""
    import torch

    class Kept:
        """Stands for a class of DeepSpeed."""

        def __new__(cls, *arguments: Any) -> Any:
            made = super().__new__(cls)
            made.arguments = arguments
            return made

    class Stage(Kept): ...

    class Scaler(Kept): ...

    class Address(Kept): ...

    names = [
        (Stage, "deepspeed.runtime.zero.config.ZeroStageEnum"),
        (Scaler, "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
        (Address, "deepspeed.utils.tensor_fragment.fragment_address"),
    ]
    step = run / "global_step2"
    with torch.serialization.safe_globals(names):
        parts = [torch.load(file, weights_only=True) for file in sorted(step.glob("*optim_states.pt"))]
        model = torch.load(step / "mp_rank_00_model_states.pt", weights_only=True)
    states = [each["optimizer_state_dict"] for each in parts]
    found = {name: model["module"][name] for name in (*model["buffer_names"], *model["frozen_param_shapes"])}
    for number, shapes in enumerate(model["param_shapes"]):
        row, start = torch.cat([each["single_partition_of_fp32_groups"][number] for each in states]), 0
        for name, shape in shapes.items():
            found[name] = row.narrow(0, start, shape.numel()).view(shape)
            start += shape.numel() + states[0]["param_alignment_paddings"][number][list(shapes).index(name)]
    return as_bytes({**found, **{name: found[kept] for name, kept in model["shared_params"].items()}})


def _small(folder: Path) -> dict[str, Reader]:
    import warmkit
    from warmkit.layouts.tokenizer import read_vocabulary_file
    from warmkit.layouts.tokenizer_files import named_tokens
    from warmkit.verbs.verify import verify

    tokenizer = _place(folder / "configured", "tokenizer.json", json.dumps(TOKENIZER).encode())
    side = _place(
        folder / "configured", "tokenizer_config.json", b'{"eos_token": "<a>", "pad_token": {"content": "t1"}, "n": 1}'
    )
    checkpoint = open_checkpoint(folder / "configured")
    out = warmkit.merge([folder / "single", folder / "single"], folder / "merged", method="lerp", threads=1).path

    def vocabulary() -> Seen:
        found = read_vocabulary_file(tokenizer)
        named_tokens(checkpoint)
        return found.base, [each["id"] for each in found.added]

    def listed() -> Seen:
        content = json.loads(tokenizer.read_bytes())
        vocab = (content.get("model") or {}).get("vocab") or {}
        base = vocab if isinstance(vocab, dict) else {row[0]: place for place, row in enumerate(vocab)}
        return base, [each["id"] for each in content.get("added_tokens") or []]

    return {
        "tokenizer": Reader(tokenizer, json_too, vocabulary, listed),
        "tokenizer config": Reader(side, json_too, lambda: sorted(named_tokens(checkpoint)) and None),
        "manifest": Reader(out / "warmkit.json", json_too, lambda: verify(out, threads=1) and None),
    }


def _texts(folder: Path) -> dict[str, Reader]:
    from warmkit.data.rows import read_rows
    from warmkit.mergekit.schema import is_mergekit
    from warmkit.mergekit.several import read_several
    from warmkit.recipes.recipe import MergeRecipe, read_recipe
    from warmkit.verbs.greedy_soup import run_score

    recipe, kit = _place(folder / "recipes", "r.yaml", RECIPE), _place(folder / "recipes", "kit.yaml", MERGEKIT)
    rows, printed = _place(folder / "rows", "rows.jsonl", ROWS), _place(folder / "score", "printed", b"loading\n0.25\n")

    def score() -> Seen:
        return run_score("cat {}/printed", printed.parent)

    return {
        "recipe": Reader(
            recipe,
            plain([*WORDS, *YAML_WORDS]),
            lambda: read_recipe(recipe, MergeRecipe).content.merge.models,
            lambda: yaml.safe_load(recipe.read_text())["merge"].get("models"),
        ),
        "mergekit": Reader(kit, plain([*WORDS, *YAML_WORDS]), lambda: is_mergekit(kit) and read_several(kit, None) and None),
        "rows": Reader(
            rows,
            plain(WORDS),
            lambda: read_rows(rows, lambda row, where: row),
            lambda: [json.loads(line) for line in rows.read_bytes().split(b"\n") if line.strip()],
        ),
        "score": Reader(printed, plain([*WORDS, b"inf", b"1_0", b"0x1"]), score),
    }


class _Socket:
    """A connection on which an answer has come."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self.content)


def _http(folder: Path) -> Reader:
    import contextlib

    from warmkit.sources import remote_file
    from warmkit.sources.http_file import HttpFile, Site
    from warmkit.sources.remote_file import PassingError

    remote_file.BACKOFF = 0.0
    answer = _place(folder / "http", "answer", ANSWER)

    class Answers:
        """Connections to a server that has one answer."""

        @contextlib.contextmanager
        def get(self, url: str, headers: Any) -> Any:
            response = HTTPResponse(_Socket(answer.read_bytes()))  # type: ignore[arg-type]
            try:
                response.begin()
                yield response
            except Exception as error:  # as Connections says it
                from http.client import HTTPException

                if isinstance(error, (OSError, HTTPException)):
                    raise PassingError("broken") from None
                raise

    def read() -> Seen:
        site = Site()
        site.connections = Answers()  # type: ignore[assignment]
        found = HttpFile(site, "http://host/a", "http://host/a", "a")
        return found.size, len(found.beginning)

    def damage(draw: random.Random, content: bytes) -> bytes:
        head, gap, body = content.partition(b"\r\n\r\n")
        return damaged(draw, head, [*WORDS, b"\r\n", b"9" * 5000, b"bytes */5", b"301", b"Location: x\r\n"]) + gap + body

    return Reader(answer, damage, read)
