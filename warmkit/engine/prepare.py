"""Preparation of a merge, before the first weight is read: inputs opened and compared, the output planned."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash

from warmkit._version import __version__
from warmkit.common.units import size
from warmkit.engine.container_copy import ContainerCopy, check_container, plan_copy, refuse_foreign_names
from warmkit.engine.digests import ALGORITHM
from warmkit.engine.doubts import doubts_before, refuse_doubts
from warmkit.engine.inputs import FileSource
from warmkit.engine.job import Job, build_job, input_rows
from warmkit.engine.kept_tensors import kept
from warmkit.engine.merge_options import OutputOptions, PathLike
from warmkit.engine.plan import Output, Plan, parse_size, plan_output
from warmkit.engine.spec import MergeSpec
from warmkit.engine.staging import Staging, staging_place
from warmkit.errors import MismatchError, OutputError, UsageError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtypes import parse_output_dtype
from warmkit.layouts.adapter_config import CONFIG as ADAPTER_CONFIG
from warmkit.layouts.companions import companion_donor, companion_files
from warmkit.layouts.compatibility import Aligned, align
from warmkit.layouts.model_heads import advice_on_heads, check_heads, with_heads_of_models
from warmkit.layouts.opening import open_inputs
from warmkit.layouts.text_ends import added_ends
from warmkit.layouts.token_sources import TokenChanges
from warmkit.layouts.tokenizer import find_template, find_tokenizer, lost_template
from warmkit.layouts.vocabularies import Matched, RowWeights, match_vocabularies
from warmkit.sources.file_identity import Identity, check_unchanged
from warmkit.sources.files import Files


@dataclass(frozen=True)
class Prepared:
    """Everything known before the first weight is read."""

    output: Path
    spec: MergeSpec
    init: Checkpoint | None
    models: list[Checkpoint]
    donor: Checkpoint
    companions: Checkpoint
    job: Job
    plan: Plan
    folders: list[str]
    notes: tuple[str, ...]
    patterns: tuple[Sequence[str], Sequence[str]]
    kept: frozenset[str]
    tokenizer: Path | None
    chat_template: str | None
    matched: Matched
    doubts: tuple[str, ...]
    small_files: list[Path]
    watched: dict[Path, Identity]
    ends: list[int]
    heads: frozenset[str]
    copy: ContainerCopy | None = None

    def check(self) -> None:
        """Ask whether the inputs, their configs and tokenizers are still what they were when they were opened.

        Raises:
            CheckpointError: Naming a file that is not.
        """
        for checkpoint in [*([self.init] if self.init else []), *self.models]:
            checkpoint.check()
        self.check_small_files()

    def check_small_files(self) -> None:
        """Ask this of configs and tokenizers alone, once they have been copied."""
        check_unchanged(self.watched, self.watched)

    @property
    def bytes_read(self) -> int:
        return sum(self.job.bytes_read(name) * self.job.passes(name) for name in self.job.dtypes)

    @property
    def bytes_streamed(self) -> int:
        far = [row for row in self.job.rows if row.far]
        read = [name for name in self.job.dtypes if name not in self.job.twins]
        sizes = {name: sum(row.dtype(name).itemsize for row in far) for name in read}
        return sum(self.job.elements(name) * size * self.job.passes(name) for name, size in sizes.items())

    @property
    def bytes_written(self) -> int:
        return self.plan.nbytes * len(self.folders)

    @property
    def bytes_needed(self) -> int:
        """Bytes that the disk needs: a copy of a container is made beside the merged weights."""
        return self.bytes_written + (self.copy.nbytes * len(self.folders) if self.copy else 0)


def prepare(
    spec: MergeSpec,
    models: Sequence[PathLike | Checkpoint],
    init: PathLike | Checkpoint | None,
    output: Path,
    options: OutputOptions,
) -> Prepared:
    """Open, compare and plan; `output` is where the result will be, which must not be an input."""
    dtype = parse_output_dtype(name) if (name := options.get("dtype")) else None
    max_shard_size = parse_size(options.get("max_shard_size", "5GB"))
    if (threads := options.get("threads")) is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, found {threads}")
    same_container = check_container(options)
    if not models:
        raise UsageError("expected at least one model")
    input_rows(spec, init, models)
    everything = open_inputs(models if init is None else [init, *models], options)
    opened_init, opened = (None, everything) if init is None else (everything[0], everything[1:])
    inputs = [part for each in everything for part in each.inputs]
    check_apart(output, inputs)
    doubts = tuple(doubts_before(spec, opened_init, opened))
    refuse_doubts(doubts, options.get("strict", False))
    only, exclude = options.get("only") or (), options.get("exclude") or ()
    everything, unmerged, left_out = _chosen(everything, only, exclude)
    own = frozenset[str]()
    if check_heads(options.get("heads", "init"), opened_init is not None):
        everything, own, averaged = with_heads_of_models(everything[0], everything[1:], spec.shares.tolist())
        left_out += averaged
    companions, notes = companion_donor(everything[1:] if own else everything)
    notes += left_out
    mode = options.get("vocabulary", "strict")
    matched = _matched(everything, companions, spec, mode, opened_init is not None, options)
    ends = added_ends(companions, opened) if mode == "strict" else []
    if ends:
        notes.append(f"generation_config.json also names the ends that models name and {companions.source} does not: {ends}")
    everything = matched.checkpoints
    aligned = _aligned(everything, unmerged | own, mode, opened_init is not None)
    files = Files({file: known for each in inputs for file, known in each.identities.items()})
    sources = [FileSource(each.source, entries, files) for each, entries in zip(everything, aligned.entries)]
    rows = input_rows(spec, sources[0] if opened_init else None, sources[len(sources) - len(opened) :])
    donor = everything[0]
    job = build_job(spec, rows, list(donor.entries), dtype, options.get("allow_nonfinite", False), unmerged | own)
    tensors = (Output(name, job.dtypes[name], entry.shape) for name, entry in donor.entries.items())
    plan = plan_output(tensors, max_shard_size, {"format": "pt", **donor.metadata})
    folders = spec.outputs if len(spec.outputs) > 1 else [""]
    refuse_foreign_names(everything, same_container)
    first = len(everything) - len(opened)
    chosen = input_rows(spec, everything[0] if first else None, everything[first:])
    copy = plan_copy(spec, chosen, everything[first:], plan.outputs, options) if same_container else None
    if unmerged:
        notes.append(f"{len(unmerged)} of {len(donor.entries)} tensors are copied from {donor.source} (--only, --exclude)")
    tokenizer = find_tokenizer(wanted, inputs) if (wanted := options.get("tokenizer")) else None
    template = find_template(text, inputs) if (text := options.get("chat_template")) else None
    notes += lost_template(companions, inputs) if tokenizer is None and not text else []
    return Prepared(
        output,
        spec,
        opened_init,
        opened,
        donor,
        companions,
        job,
        plan,
        folders,
        (*aligned.notes, *notes, *matched.notes, *doubts, *(copy.notes if copy else ())),
        (only, exclude),
        unmerged,
        tokenizer,
        template,
        matched,
        doubts,
        companion_files(companions),
        {path: known for each in inputs for path, known in small_files(each).items()},
        ends,
        own,
        copy,
    )


def _matched(
    checkpoints: Sequence[Checkpoint],
    companions: Checkpoint,
    spec: MergeSpec,
    mode: str,
    has_init: bool,
    options: OutputOptions,
) -> Matched:
    changes = TokenChanges(options.get("token_rows") or {}, options.get("pad_to_multiple_of"))
    if (mode != "strict" or changes.tokens) and options.get("tokenizer"):
        raise UsageError(f"vocabulary {mode} writes the tokenizer of the rows that it matched; leave the tokenizer out")
    weights = RowWeights(spec.shares, spec.method.mix == "scales", spec.uses_init)
    return match_vocabularies(checkpoints, companions, weights, mode, has_init, changes)


def _aligned(checkpoints: Sequence[Checkpoint], kept: frozenset[str], mode: str, with_init: bool) -> Aligned:
    try:
        return align(checkpoints, kept, vocabularies=mode == "strict")
    except MismatchError as error:
        advice = advice_on_heads(checkpoints[0] if with_init else None, checkpoints[1:])
        raise MismatchError(f"{error}{advice}") from None


def small_files(checkpoint: Checkpoint) -> dict[Path, Identity]:
    """Return the files beside the weights that are read, compared or copied, as they were."""
    home, known = checkpoint.directory, checkpoint.identities
    places = {home, *checkpoint.adapters}
    found = {home / file for file in companion_files(checkpoint)} if home else set[Path]()
    found |= {path for path in known if path.parent in places and path.name.endswith((ADAPTER_CONFIG, ".index.json"))}
    return {path: known[path] for path in found if path in known}


def _chosen(
    checkpoints: list[Checkpoint], only: Sequence[str], exclude: Sequence[str]
) -> tuple[list[Checkpoint], frozenset[str], list[str]]:
    """Return the checkpoints without what takes no part and the first lacks, what is copied from the first, and notes."""
    if not only and not exclude:
        return checkpoints, frozenset(), []
    first, *others = checkpoints
    beyond = dict.fromkeys(name for each in others for name in each.entries if name not in first.entries)
    unmerged = kept(first.entries, only, exclude, beyond)
    gone = [name for name in beyond if name in unmerged]
    if not gone:
        return checkpoints, unmerged, []
    rest = [replace(each, entries={k: v for k, v in each.entries.items() if k not in gone}) for each in others]
    note = f"{gone[0]!r}{f' and {len(gone) - 1} more' if len(gone) > 1 else ''}, which {first.source} lacks: left out"
    return [first, *rest], unmerged & first.entries.keys(), [f"{note} (--only, --exclude)"]


def check_apart(output: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse a destination that is an input, holds one or a file of one, or lies inside one."""
    target, staging = output.resolve(), staging_place(output).resolve()
    for checkpoint in checkpoints:
        for place in (path.resolve() for path in (checkpoint.path, *checkpoint.adapters)):
            if target == place:
                raise OutputError(f"{output}: is an input; choose another -o")
            if place.is_relative_to(target):
                raise OutputError(f"{output}: holds the input {checkpoint.source}; choose another -o")
            if target.is_relative_to(place):
                raise OutputError(f"{output}: lies inside the input {checkpoint.source}; choose another -o")
        for file in (file.resolve() for file in checkpoint.files if isinstance(file, Path)):
            if file.is_relative_to(target) or file.is_relative_to(staging):
                raise OutputError(f"{output}: holds {file}, a file of the input {checkpoint.source}; choose another -o")


def check_disk(prepared: Prepared, staging: Staging) -> None:
    """Refuse a destination whose disk lacks the room."""
    place, needed, free = room(prepared, staging)
    if needed > free:
        raise OutputError(f"{staging.destination}: {size(needed)} are needed and {size(free)} are free on {place}")


def room(prepared: Prepared, staging: Staging) -> tuple[Path, int, int]:
    """Return the directory whose disk takes the result, and the bytes that are needed and free there."""
    place = staging.destination.parent
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        raise OutputError(f"{staging.destination}: {place} is not writable")
    staged = sum(file.stat().st_blocks * 512 for file in staging.root.rglob("*") if file.is_file())
    return place, prepared.bytes_needed - staged, shutil.disk_usage(place).free


def fingerprint(prepared: Prepared) -> str:
    """Digest what decides the bytes: the parameters, the input files as they are now, and the planned layout."""
    job, spec = prepared.job, prepared.spec
    checkpoints = [*([prepared.init] if prepared.init else []), *prepared.models]
    identity = {
        "digest": [ALGORITHM, __version__],
        "method": [spec.name, spec.method.name, spec.shares.tolist(), spec.etas, spec.granularity, spec.antiparallel],
        "rows": [row.name for row in job.rows],
        "angles": spec.angles,
        "kept": sorted(prepared.kept),
        "heads": sorted(prepared.heads),
        "parameters": spec.parameters,
        "tokenizer": [str(prepared.tokenizer), prepared.chat_template],
        "vocabulary": prepared.matched.identity,
        "allow_nonfinite": job.allow_nonfinite,
        "inputs": [checkpoint.fingerprint() for checkpoint in checkpoints],
        **(
            {"copy": [str(prepared.copy.root), [str(each) for each in prepared.copy.files], len(prepared.copy.moments)]}
            if prepared.copy
            else {}
        ),
        **({"averages": [each.coefficients.tolist() for each in spec.averages.values()]} if spec.averages else {}),
        "shards": [[shard.file, xxhash.xxh3_128_hexdigest(shard.header)] for shard in prepared.plan.shards],
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(identity).encode())
