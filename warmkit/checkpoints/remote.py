"""Checkpoints that are streamed: weights by byte ranges, never on disk; the small files beside them in a folder here."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import quote, urlunsplit

from warmkit.addresses import printable, shown
from warmkit.checkpoints.beside import VALUE_HEAD, Beside, modules_of, weights_beside
from warmkit.checkpoints.companions import KEPT
from warmkit.checkpoints.fsspec_file import FsspecFile, Store
from warmkit.checkpoints.http_file import AbsentError, HttpFile, Site, web_address
from warmkit.checkpoints.refused import refuse_form
from warmkit.checkpoints.remote_file import RemoteFile
from warmkit.checkpoints.safetensors_format import parse_json
from warmkit.errors import CheckpointError, FormatError, UnsupportedError

T = TypeVar("T")

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
AT_A_TIME = 8

# A web server lists nothing, so these are asked for by name; remote code is named by the config.
ASKED = (
    *("config.json", "generation_config.json", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "modules.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("preprocessor_config.json", "processor_config.json", "chat_template.json", "spm.model", "source.spm", "target.spm"),
)


@dataclass(frozen=True)
class Remote:
    """A checkpoint that is elsewhere.

    Attributes:
        source: What the user calls it, without secrets.
        folder: Where its small files lie; for a lone weight file a path that is not there.
        files: The weights.
        mapping: From tensors to file names, as its index says; None without one.
        beside: What lies beside the weights.
        others: Its files.
    """

    source: str
    folder: Path
    files: list[RemoteFile]
    mapping: dict[str, str] | None
    beside: Beside = Beside((), ())
    others: list[RemoteFile] = field(default_factory=lambda: [])


def is_streamed(source: str, stream: bool) -> bool:
    """Say whether a source is read over a network while it is merged: what has an address always is, the Hub on request."""
    scheme, separator, _ = source.partition("://")
    if not separator or scheme == "package" or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        return stream and not Path(source).expanduser().exists()
    return scheme != "hf" or stream


def open_remote(source: str) -> Remote:
    """Open a checkpoint for streaming: its small files, and the beginning of every weight file.

    Args:
        source: `http://` or `https://` and a model directory or one `.safetensors` file; `hf://owner/name[@revision]`, or
            `owner/name`; any other address is fsspec's.

    Raises:
        CheckpointError: If it is not there, cannot be read by ranges, or is of a kind that is refused.
    """
    if source.startswith(("http://", "https://")):
        return _open_web(source)
    if "://" not in source or source.startswith("hf://"):
        from warmkit.checkpoints.remote_hub import open_hub

        return open_hub(source)
    return _open_store(source)


def _open_web(url: str) -> Remote:
    address, place, site = web_address(url), shown(url).rstrip("/"), Site()
    folder = temporary_folder(site)
    if address.path.endswith(".safetensors"):
        name = PurePosixPath(address.path).name
        return Remote(place, folder / name, [HttpFile(site, url, place, name)], None)

    def at(name: str) -> str:
        return urlunsplit((address.scheme, address.netloc, f"{address.path.rstrip('/')}/{quote(name)}", address.query, ""))

    def fetch(name: str) -> bytes | None:
        return site.small_file(f"{place}/{name}", at(name))

    save(folder, {name: body for name, body in zip(ASKED, several(fetch, ASKED)) if body is not None})
    code = _remote_code(folder)
    save(folder, {name: body for name, body in zip(code, several(fetch, code)) if body is not None})

    def opened(name: str) -> HttpFile:
        return HttpFile(site, at(name), f"{place}/{name}", name)

    def perhaps(name: str) -> HttpFile | None:
        with contextlib.suppress(AbsentError):
            return opened(name)
        return None

    modules = modules_of(folder)
    configs = [f"{name}/config.json" for name in modules]
    save(folder, {name: body for name, body in zip(configs, several(fetch, configs)) if body is not None})
    asked = [VALUE_HEAD, *(f"{name}/{SINGLE}" for name in modules)]
    others = [file for file in several(perhaps, asked) if file is not None]
    beside = Beside(tuple(file.name for file in others), ())
    index = fetch(INDEX)
    if index is not None:
        mapping = read_mapping(index, f"{place}/{INDEX}")
        return Remote(place, folder, several(opened, sorted(set(mapping.values()))), mapping, beside, [*others])
    try:
        return Remote(place, folder, [opened(SINGLE)], None, beside, [*others])
    except AbsentError:
        raise CheckpointError(f"{place}: expected {SINGLE} or {INDEX}, the server has neither") from None


def _remote_code(folder: Path) -> list[str]:
    """Return the modules that `auto_map` in config.json names, as `modeling.Model`."""
    path = folder / "config.json"
    config = parse_json(path.read_bytes(), path) if path.is_file() else {}
    mapped = config.get("auto_map") if isinstance(config, dict) else None
    values = mapped.values() if isinstance(mapped, dict) else ()
    return sorted({f"{value.split('.')[0]}.py" for value in values if isinstance(value, str) and re.match(r"\w+\.", value)})


def _open_store(url: str) -> Remote:
    store = Store(url)
    folder, names = temporary_folder(store), list(filter(is_plain, store.names()))
    if names == [""]:
        if not store.path.endswith(".safetensors"):
            raise CheckpointError(f"{store.place}: expected a folder or a .safetensors file")
        return Remote(store.place, folder / PurePosixPath(store.path).name, [FsspecFile(store, "")], None)
    weights, index = choose(names, store.place)
    companions = [name for name in names if name.endswith(KEPT) or name.upper().startswith(("LICENSE", "NOTICE"))]
    save(folder, dict(zip(companions, several(store.small_file, companions))))
    mapping = read_mapping((folder / index).read_bytes(), f"{store.place}/{index}") if index else None
    check_single(names, mapping or {SINGLE: SINGLE}, store.place)
    files = several(lambda name: FsspecFile(store, name), sorted(set(mapping.values())) if mapping else weights)
    beside = weights_beside(names, [file.name for file in files], modules_of(folder), store.place)
    others = several(lambda name: FsspecFile(store, name), beside.files)
    return Remote(store.place, folder, [*files], mapping, beside, [*others])


def choose(names: Iterable[str], place: str) -> tuple[list[str], str | None]:
    """Return the weight files of a model directory, or its index.

    Raises:
        CheckpointError: If there is none, or it is not clear which.
    """
    known = set(names)
    if INDEX in known:
        return [], INDEX
    if SINGLE in known:
        return [SINGLE], None
    if "adapter_config.json" in known:
        raise UnsupportedError(f"{place}: a LoRA adapter, which cannot be streamed; download it first")
    found = sorted(name for name in known if name.endswith(".safetensors") and "/" not in name)
    if len(found) == 1:
        return found, None
    if found:
        raise FormatError(f"{place}: {len(found)} safetensors files ({', '.join(found[:4])}) and no {INDEX}")
    pickles = sorted(name for name in known if name.endswith(PICKLES))
    if pickles:
        raise UnsupportedError(f"{place}: only pickle files ({', '.join(pickles[:3])}), which cannot be streamed")
    refuse_form(sorted(known), place)
    raise CheckpointError(f"{place}: expected {SINGLE} or {INDEX}, found neither")


def read_mapping(index: bytes, place: str) -> dict[str, str]:
    """Return the weight map of an index.

    Raises:
        FormatError: If it is none, or leads out of the model.
    """
    content = parse_json(index, place)
    mapping = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(value, str) for value in mapping.values()):
        raise FormatError(f"{place}: expected a weight_map from tensor names to file names")
    for name in set(mapping.values()):
        if not is_plain(name) or not name.endswith(".safetensors"):
            raise FormatError(f"{place}: points to {name[:200]!r}, which is no safetensors file of this model")
    return mapping


def check_single(names: Iterable[str], mapping: Mapping[str, str], place: str) -> None:
    """Refuse a model directory whose index leaves its one file out, so that it is not clear which one counts."""
    if SINGLE in names and set(mapping.values()) != {SINGLE}:
        raise FormatError(f"{place}: holds both {SINGLE} and {INDEX}, so it is not clear which one counts")


def save(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write small files.

    Raises:
        CheckpointError: If a name leads out of the folder.
    """
    for name, body in files.items():
        if not is_plain(name):
            raise CheckpointError(f"{name[:200]!r} is no name of a file inside a model")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


def is_plain(name: str) -> bool:
    """Say whether a name that somebody else gave is a path inside a folder here, whatever system reads it."""
    if not name:
        return True  # the place itself
    parts = name.split("/")
    return not any(part in ("", ".", "..") or printable(part) != part or set(part) & {":", "\\"} for part in parts)


def several(fetch: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """Fetch many at a time, in order."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(fetch, names))


def temporary_folder(owner: object) -> Path:
    """Create a folder that is removed when its owner is, at the end of the process at the latest."""
    folder = tempfile.mkdtemp(prefix="warmkit-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
