"""Compatibility of checkpoints that are averaged: names, shapes, kinds, tied tensors, configs, vocabularies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.common.json_files import read_object
from warmkit.errors import MismatchError, listed
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.tensors import Tensor
from warmkit.layouts.config_defaults import ties
from warmkit.layouts.config_meanings import compare
from warmkit.layouts.layer_kinds import apart_from_layers
from warmkit.layouts.misfits import FEW, names_by_part, pairs_by_part
from warmkit.layouts.nearest_layout import nearest_layout
from warmkit.layouts.renamed import renamed
from warmkit.sources.beside import split_name
from warmkit.sources.files import Files

HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "shared.weight")


@dataclass(frozen=True)
class Aligned:
    """Checkpoints whose tensors correspond one to one.

    Attributes:
        entries: For each checkpoint, its tensor for every name of the first.
        notes: Harmless differences, one line each.
    """

    entries: tuple[dict[str, Tensor], ...]
    notes: tuple[str, ...]


def align(
    checkpoints: Sequence[Checkpoint], kept: Collection[str] = (), vocabularies: bool = True, by_layer: bool = True
) -> Aligned:
    """Compare every checkpoint with the first (the initialisation, or the first model), from headers alone.

    Weights are read only where a config says that the output head is tied and the file holds a head all the same.

    Args:
        checkpoints: The reference, then the others.
        kept: Names that are copied from the first, whatever the others have there.
        vocabularies: Whether tokenizers must agree; not where rows were matched by token.
        by_layer: Whether configs must say the same of every layer; not where layers are put together from several.

    Raises:
        MismatchError: Listing every problem per model.
    """
    reference, *others = checkpoints
    _refuse_rescaled(checkpoints)
    entries, notes = [reference.entries], [note for checkpoint in checkpoints for note in checkpoint.notes]
    for other in others:
        tensors, note = untangle_head(reference, other)
        entries.append({**tensors, **{name: reference.entries[name] for name in kept}})
        notes += note
    found = [_tensor_problems(reference, tensors) for tensors in entries[1:]]
    if any(found):
        said = [_heading(reference, other, problems) for other, problems in zip(others, found)]
        raise MismatchError("\n".join(filter(None, [*said, _advice(reference, found)])))
    for checkpoint, tensors in zip(checkpoints, entries):
        _check_tied_head(checkpoint, tensors)
    for other in others:
        notes += _compare_configs(reference, other, by_layer)
        notes += _compare_vocabularies(reference, other) if vocabularies else []
    return Aligned(tuple(entries), tuple(notes))


def _refuse_rescaled(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse what AWQ rescaled beside another model; adapters on one such base are fine."""
    found = next((each for each in checkpoints if each.rescaled), None)
    other = next((each for each in checkpoints if found and each.path != found.path), None)
    if found and other:
        raise MismatchError(
            f"{found.source} was quantised by AWQ, which multiplies channels of weights by scales of its own and divides what "
            f"is before them: they are not in the units of {other.source}; merge the models they were made from, then quantise"
        )


@dataclass(frozen=True)
class Problems:
    """What of a model does not fit; false where all does.

    Attributes:
        lines: What is said.
        count: How many tensors do not fit, those of layers and experts left out that one of the two lacks.
        renamed: Whether tensors are missing and others are there instead.
    """

    lines: tuple[str, ...] = ()
    count: int = 0
    renamed: bool = False

    def __bool__(self) -> bool:
        return bool(self.lines)


def _heading(reference: Checkpoint, other: Checkpoint, problems: Problems) -> str:
    if not problems:
        return ""
    near = nearest_layout(reference, other) if problems.renamed else ""
    return f"{other.source} does not fit:\n{listed([*problems.lines])}" + (f"\n  {near}" if near else "")


def _advice(reference: Checkpoint, found: Sequence[Problems]) -> str:
    """Return what to do about problems that do not say it themselves."""
    lines = [line for problems in found for line in problems.lines]
    if any(word in line for line in lines for word in ("--exclude", "--vocabulary", "save it")):
        return ""
    if not any(problems.count for problems in found):
        return "Give models with the same layers and experts; copy a checkpoint again if its files are not complete"
    if max(problems.count for problems in found) > len(reference.entries):
        return "Most tensors differ: give models that were fine-tuned from one, with the same names of tensors"
    return "warmkit inspect shows what a model holds; a merge leaves tensors out with --exclude 'NAME*'"


def _tensor_problems(reference: Checkpoint, tensors: dict[str, Tensor]) -> Problems:
    if pairs := renamed(reference.entries, tensors):
        return Problems((_renamed(pairs, reference.source),), len(pairs))
    theirs, ours = tensors.keys(), reference.entries.keys()
    missing, extra = [name for name in ours if name not in theirs], [name for name in theirs if name not in ours]
    unequal: dict[str, str] = {}
    for name, mine in reference.entries.items():
        if name in tensors and (problem := _pair_problem(name, mine, tensors[name], reference.source)):
            unequal[name] = problem
    count = len(missing) + len(extra) + len(unequal)
    lines = [f"missing tensor {name!r}" for name in missing]
    lines += [f"extra tensor {name!r}, which {reference.source} lacks" for name in extra]
    lines += unequal.values()
    if many := count > FEW:
        lines, rest = names_by_part(missing, extra, ours, reference.source)
        lines, count = [*lines, *pairs_by_part(unequal, ours)], rest + len(unequal)
    beside = dict.fromkeys(file for name in (*missing, *extra) if (file := split_name(name)[0]))
    lines += [f"--exclude '{file}:*' leaves out, or keeps of {reference.source}, what is in {file}" for file in beside]
    return Problems(tuple(lines), count, many and bool(missing and extra and count))


def _renamed(pairs: Mapping[str, str], source: str) -> str:
    there, here = next(iter(pairs.items()))
    return (
        f"it calls {there!r} what {source} calls {here!r}, and so for {len(pairs)} tensors: names of transformers 4 and 5; load"
        " one of the two with the version of the other, and save it (from_pretrained, save_pretrained)"
    )


def _pair_problem(name: str, mine: Tensor, theirs: Tensor, source: str) -> str:
    if mine.shape != theirs.shape:
        return f"tensor {name!r} has shape {list(theirs.shape)}, {source} has {list(mine.shape)}{_padding(mine, theirs)}"
    differs = mine.dtype != theirs.dtype
    if differs and "exact" in (mine.dtype.kind, theirs.dtype.kind):
        return f"tensor {name!r} is {theirs.dtype.name}, {source} has {mine.dtype.name}"
    return ""


def _padding(mine: Tensor, theirs: Tensor) -> str:
    vocabulary = mine.name == HEAD or mine.name.endswith(EMBEDDINGS)
    if vocabulary and mine.shape[1:] == theirs.shape[1:]:
        return " (another vocabulary, or padding that no tokenizer tells from it: --vocabulary union, init or common)"
    return ""


def embedding_of(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """Return the input embedding, None where no name says which it is."""
    return next((entry for name, entry in tensors.items() if name.endswith(EMBEDDINGS)), None)


def untangle_head(reference: Checkpoint, other: Checkpoint) -> tuple[dict[str, Tensor], list[str]]:
    """Give `other` the head that `reference` has, or take away the copy that `reference` ties."""
    tensors = _shared_names(reference, other)
    embedding = embedding_of(tensors)
    here, there = HEAD in reference.entries, HEAD in tensors
    if here == there or embedding is None:
        return tensors, []
    if here and ties(other.config):
        return {**tensors, HEAD: embedding}, [f"{other.source} ties {HEAD} to {embedding.name}; {reference.source} does not"]
    if there and ties(reference.config):
        if not same_bytes(tensors[HEAD], embedding):
            raise MismatchError(
                f"{other.source} has an output head of its own ({HEAD} differs from {embedding.name}), {reference.source} "
                "ties the two; untie it there first, since a tied model cannot hold the merged head"
            )
        rest = {name: entry for name, entry in tensors.items() if name != HEAD}
        return rest, [f"{other.source} stores {HEAD}, a copy of {embedding.name}, which {reference.source} ties"]
    return tensors, []


def _shared_names(reference: Checkpoint, other: Checkpoint) -> dict[str, Tensor]:
    """Give tied tensors, which a pickle may store under every name, the names that the reference has."""
    tensors = dict(other.entries)
    for name, kept in {**reference.tied, **other.tied}.items():
        if name in reference.entries and name not in tensors and kept in tensors:
            tensors[name] = tensors[kept]
        elif name in other.tied and name in tensors and name not in reference.entries:
            del tensors[name]
    return tensors


def _check_tied_head(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> None:
    """Refuse a file whose head differs from the embedding although its config ties them: loaders would drop it."""
    embedding, head = embedding_of(tensors), tensors.get(HEAD)
    if not ties(checkpoint.config) or head is None or embedding is None or head is embedding:
        return
    if head.shape != embedding.shape or not same_bytes(head, embedding):
        raise MismatchError(
            f"{checkpoint.source}: config.json ties {HEAD} to {embedding.name}, but the file holds two different tensors; "
            "set tie_word_embeddings to false there, or remove the head"
        )


def same_bytes(first: Tensor, second: Tensor, chunk: int = 1 << 22) -> bool:
    """Compare two tensors byte by byte."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    one, two = bytearray(chunk), bytearray(chunk)
    size = first.dtype.itemsize
    with Files() as files:
        for start in range(0, first.nbytes, chunk):
            count = min(chunk, first.nbytes - start)
            first.read(files, start // size, memoryview(one)[:count])
            second.read(files, start // size, memoryview(two)[:count])
            if one[:count] != two[:count]:
                return False
    return True


def _compare_configs(reference: Checkpoint, other: Checkpoint, by_layer: bool) -> list[str]:
    mine, theirs = reference.config, other.config
    if not mine or not theirs:
        return []
    found = compare(mine, theirs) if by_layer else compare(apart_from_layers(mine), apart_from_layers(theirs))
    if found.contradictions:
        problems = [f"{key} is {there}, {reference.source} has {here}" for key, (here, there) in found.contradictions.items()]
        raise MismatchError(
            f"{other.source} has another architecture (config.json), so its weights mean something else:\n{listed(problems)}\n"
            "Merge models of one family; or correct the config.json, if that is what is wrong"
        )
    return [
        f"{other.source}: config.json has {key} = {there}; the merge keeps {here} of {reference.source}"
        for key, (here, there) in found.others.items()
    ]


def _compare_vocabularies(reference: Checkpoint, other: Checkpoint) -> list[str]:
    here, there = reference.tokenizer_home, other.tokenizer_home
    if here is None or there is None:
        return []
    notes: list[str] = []
    for name, read in _VOCABULARIES.items():
        mine, theirs = here / name, there / name
        if not mine.is_file() or not theirs.is_file():
            continue
        if mine.read_bytes() == theirs.read_bytes():
            continue
        _same_vocabulary(read(mine), read(theirs), reference, other, name)
        notes.append(f"{other.source}: {name} has the same vocabulary, but is not the same file as in {reference.source}")
    return notes


def _same_vocabulary(mine: dict[str, Any], theirs: dict[str, Any], reference: Checkpoint, other: Checkpoint, name: str) -> None:
    different = sorted(token for token in mine.keys() | theirs.keys() if mine.get(token) != theirs.get(token))
    if different:
        shown = ", ".join(f"{t!r} ({theirs.get(t, 'absent')}, not {mine.get(t, 'absent')})" for t in different[:4])
        raise MismatchError(
            f"{other.source}: {name} has another vocabulary than {reference.source}: {len(different)} tokens differ, such as "
            f"{shown}; averaged embeddings would mix tokens: --vocabulary union, init or common matches rows by token"
        )


def _tokenizer_json(path: Path) -> dict[str, Any]:
    from warmkit.layouts.tokenizer import read_vocabulary_file  # it checks links, for which it knows companions

    return read_vocabulary_file(path).ids


def _vocab_json(path: Path) -> dict[str, Any]:
    return read_object(path)


def _vocab_txt(path: Path) -> dict[str, Any]:
    return {token: place for place, token in enumerate(path.read_text("utf-8", errors="replace").split("\n"))}


def _opaque(path: Path) -> dict[str, Any]:
    return {f"({path.name})": hash(path.read_bytes())}


_VOCABULARIES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tokenizer.json": _tokenizer_json,
    "vocab.json": _vocab_json,
    "vocab.txt": _vocab_txt,
    "tokenizer.model": _opaque,
    "spiece.model": _opaque,
}
