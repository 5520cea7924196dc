"""A result in the container of its inputs: a copy of what a trainer saved, with merged weights, from which training goes on.

The checkpoint that is copied is the first model; of a run, the newest: its step, learning rate, random states and place in the
data are those that go on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.common.addresses import shown
from warmkit.common.whole_files import writing
from warmkit.engine.container_files import WRITTEN_BESIDE, belongs, files_in, is_optimizer
from warmkit.engine.merge_options import OutputOptions
from warmkit.engine.plan import Output
from warmkit.engine.recode import can_recode, is_coded
from warmkit.engine.refill import Refill
from warmkit.engine.spec import MergeSpec
from warmkit.errors import FormatError, UnsupportedError, UsageError, listed
from warmkit.formats import torch_distributed
from warmkit.formats.checkpoint import Checkpoint, read_model_config
from warmkit.formats.containers import SAFETENSORS, container_at, open_weights
from warmkit.formats.optimizer_states import Key, moments_in
from warmkit.formats.pieces import places_of
from warmkit.formats.quantised import is_dequantised
from warmkit.formats.safetensors_model import open_model
from warmkit.formats.stored_zip import StoredZip, is_zip
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.layouts.compatibility import EMBEDDINGS, HEAD
from warmkit.layouts.config_defaults import ties

WRITTEN_AS = ("safetensors", "same")
OPTIMIZERS = ("average", "keep")
ALONG_A_RUN = ("average", "ema")
RECODED = ("fp8", "mxfp4")
OTHER_WRITERS = ("dtype", "layout", "max_shard_size", "chat_template", "tokenizer")


@dataclass(frozen=True)
class ContainerCopy:
    """What is copied, and what is written over it.

    Attributes:
        template: The checkpoint that is copied.
        root: The directory of its files, or the one file.
        files: Which are copied.
        targets: Where the weights lie, by their names; several places where ranks have copies.
        moments: The optimizer's, of every row of the merge, that of the template last.
        coefficients: Of the rows, for the moments.
        notes: What was left aside.
        scheme: The quantisation that the weights are written in again, from the template's config; None where they are dense.
        measured: The relative error of that, of every output that was written.
    """

    template: Checkpoint
    root: Path
    files: tuple[Path, ...]
    targets: Mapping[str, tuple[Tensor, ...]]
    moments: Sequence[Sequence[Tensor]]
    coefficients: NDArray[np.float64] | None
    notes: tuple[str, ...]
    scheme: str | None = None
    measured: list[float] = field(default_factory=list[float])

    @property
    def nbytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @property
    def described(self) -> dict[str, Any]:
        """What the manifest says of it."""
        name, _ = self.template.container or (SAFETENSORS.name, None)
        opened = self.root.name if self.root.is_file() else "."
        asked = {"state_dict": self.template.state_dict} if self.template.state_dict is not None else {}
        moments = {"moments": len(self.moments)} if self.moments else {}
        codes = {"requantised": self.scheme, "relative_error": self.measured[-1]} if self.measured else {}
        return {
            "container": {
                "name": name,
                "copy_of": self.template.source,
                "path": shown(Path(opened)),
                **asked,
                **moments,
                **codes,
            }
        }

    @property
    def said(self) -> list[str]:
        """What the user should know of what was written as codes."""
        if not self.measured:
            return []
        found = ", ".join(f"{each:.2%}" for each in self.measured)
        return [f"quantised again ({self.scheme}), as {self.template.source} is: relative error {found} of the coded weights"]

    def within(self, file: Path, target: Path) -> Path:
        """Return the copy of a file."""
        return target / file.relative_to(self.root if self.root.is_dir() else self.root.parent)

    def write(self, weights: Path, target: Path) -> None:
        """Copy the files to a directory that is not there yet, and write the weights into them.

        Args:
            weights: Directory of the merged weights.
            target: The directory.
        """
        merged = open_model(str(weights), weights).entries
        with writing(target):
            for file in self.files:
                copy = self.within(file, target)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            with Refill(lambda file: self.within(file, target)) as refill:
                for name, places in self.targets.items():
                    source = merged[name]
                    assert isinstance(source, StoredTensor)  # of safetensors
                    for each in places:
                        refill.fill(each, source)
                for rows in self.moments:
                    assert self.coefficients is not None
                    refill.average(rows[-1], rows[:-1], self.coefficients)
            if self.scheme is not None:
                self.measured.append(refill.error.relative)
            self._mend_checksums(target)

    def _mend_checksums(self, target: Path) -> None:
        for file, start, length in self._archives():
            copy = self.within(file, target)
            descriptor = os.open(copy, os.O_RDWR | os.O_NOFOLLOW)
            try:
                with StoredZip(copy, start, length, "torch.save") as archive:
                    archive.mend_checksums(descriptor)
            finally:
                os.close(descriptor)

    def _archives(self) -> list[tuple[Path, int, int]]:
        """Return the zips that are written to: the file of each, its first byte there, and its length."""
        tensors = [*(each for places in self.targets.values() for each in places), *(rows[-1] for rows in self.moments)]
        written = {place.file for each in tensors if not is_coded(each) for place in places_of(each)}
        homes = {file.parent for file in self.files if file.name.endswith(torch_distributed.SHARD)}
        found = [each for home in sorted(homes) for each in torch_distributed.archives(home) if each[0] in written]
        alone = [file for file in self.files if file in written and file.parent not in homes and is_zip(file)]
        return [*found, *((file, 0, file.stat().st_size) for file in alone)]


def check_container(options: OutputOptions) -> bool:
    """Say whether a copy of a container is asked for, by options that fit each other.

    Raises:
        UsageError: If they do not.
    """
    container, optimizer = options.get("container", "safetensors"), options.get("optimizer")
    if container not in WRITTEN_AS:
        raise UsageError(f"container must be one of {', '.join(WRITTEN_AS)}, found {container!r}")
    if optimizer is not None and optimizer not in OPTIMIZERS:
        raise UsageError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, found {optimizer!r}")
    if container == "safetensors":
        if optimizer is not None:
            raise UsageError("optimizer is for a copy of a trainer's checkpoint (--as same); safetensors hold weights alone")
        return False
    for name in OTHER_WRITERS:
        if options.get(name):
            raise UsageError(f"--as same writes files as the trainer wrote them, which --{name.replace('_', '-')} would change")
    changed = options.get("token_rows") or options.get("pad_to_multiple_of") or options.get("vocabulary", "strict") != "strict"
    if changed or options.get("heads", "init") != "init":
        raise UsageError("--as same writes tensors as the trainer wrote them, which vocabulary and heads would change")
    return True


def refuse_foreign_names(checkpoints: Sequence[Checkpoint], same_container: bool) -> None:
    """Refuse to write as a model's files what no loader of models knows the names of.

    Raises:
        UsageError: Naming the checkpoint.
    """
    for each in checkpoints:
        if each.container is not None and container_at(each.container[1]).foreign and not same_container:
            raise UsageError(
                f"{each.source}: has a trainer's own names of tensors ({each.container[0]}), which no loader of models knows; "
                "add --as same, and convert the result with the trainer's tools"
            )


def plan_copy(
    spec: MergeSpec,
    rows: Sequence[Checkpoint],
    models: Sequence[Checkpoint],
    outputs: Mapping[str, Output],
    options: OutputOptions,
) -> ContainerCopy:
    """Decide what is copied and written.

    Args:
        spec: The merge.
        rows: Its inputs, in the order of its coefficients.
        models: Those that are no init.
        outputs: The merged tensors.
        options: Of the output.

    Raises:
        WarmkitError: If the checkpoint cannot be written so.
    """
    template, optimizer = models[-1 if spec.name in ALONG_A_RUN else 0], options.get("optimizer")
    root = _root(template)
    if template.layout is not None:
        raise UnsupportedError(
            f"{template.source}: --as same writes tensors as they lie there, and these were {template.layout}; give an init "
            "and models of one layout"
        )
    scheme = _scheme(template) if is_dequantised(template) else None
    container_at(root).check_copy(template)
    beside = [file for file in files_in(root) if file not in template.files]
    own = [file for file in beside if is_optimizer(file, root)]
    if optimizer is None and _moments_inside(template, averaged=False):
        raise UsageError(
            f"{template.source}: the optimizer's state lies in the files of the weights: --optimizer average averages it too, "
            "--optimizer keep leaves that of this checkpoint"
        )
    copied = [file for file in beside if belongs(file, template, root) or (optimizer and file in own)]
    aside = [file for file in beside if file not in copied and file.name not in WRITTEN_BESIDE]
    moments, coefficients = list[list[Tensor]](), None
    if optimizer == "average":
        coefficients = _coefficients(spec, len(rows))
        moments = _moments(rows, template)
    elif optimizer == "keep":
        _moments_of(template, averaged=False)  # a copy of the weights is refused
    return ContainerCopy(
        template,
        root,
        tuple(sorted({*copied, *map(Path, map(str, template.files))})),
        _targets(template, outputs),
        moments,
        coefficients,
        tuple(_said(template, root, aside, own)),
        scheme,
    )


def _scheme(template: Checkpoint) -> str:
    """Return the name of the quantisation of a checkpoint, in which merged weights can be written again.

    Raises:
        UnsupportedError: If they cannot.
    """
    container = template.container[0] if template.container else SAFETENSORS.name
    lone = template.directory is None
    said = {} if lone else read_model_config(template.path / "config.json").get("quantization_config", {})
    method = str(said.get("quant_method", container))
    odd = next((each for each in template.entries.values() if is_coded(each) and not can_recode(each)), None)
    if odd is not None or method not in RECODED or container != SAFETENSORS.name:
        where = f", {odd.name!r} for one" if odd is not None else f" in {container}"
        raise UnsupportedError(
            f"{template.source}: --as same quantises again in fp8 (scales of blocks) and mxfp4 of safetensors alone, and its "
            f"weights are {method}{where}; leave --as out, and quantise the result"
        )
    return method


def _root(template: Checkpoint) -> Path:
    if template.adapters or template.container is None:
        raise _no_copy(template, "an adapter on its base" if template.adapters else "streamed")
    return template.container[1]


def _no_copy(template: Checkpoint, what: str) -> UsageError:
    return UsageError(f"{template.source}: is {what}, of which --as same writes no copy; leave --as out")


def _said(template: Checkpoint, root: Path, aside: Sequence[Path], own: Sequence[Path]) -> list[str]:
    said = [f"{template.source}: copied, with the merged weights in it"]
    if template.state_dict is not None:
        said.append(f"{template.source}: only {template.state_dict} takes the result; other state dicts stay as they are")
    if aside:
        names = [str(file.relative_to(root)) for file in aside]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        advice = " (--optimizer average, or keep, for the optimizer's state)" if set(aside) & set(own) else ""
        said.append(f"{template.source}: left aside {', '.join(names[:4])}{more}{advice}")
    return said


# ---- tensors -------------------------------------------------------------------------------------------------------------


def _targets(template: Checkpoint, outputs: Mapping[str, Output]) -> dict[str, tuple[Tensor, ...]]:
    """Return the places of every merged tensor; a tied copy in a file of its own takes the numbers of what it is tied to."""
    name, root = template.container or (SAFETENSORS.name, template.path)
    opened = open_weights(template.source, root, allow_pickle=True, state_dict=template.state_dict)
    if opened.adapter_parts:
        raise _no_copy(template, "an adapter on its base")
    stored = opened.entries
    found: dict[str, list[Tensor]] = {each: [] for each in outputs}
    problems = [f"{each!r} is not in it" for each in outputs if each not in stored]
    for each, tensor in stored.items():
        if each in outputs and outputs[each].shape != tensor.shape:
            problems.append(f"{each!r} is {list(tensor.shape)} in it, and {list(outputs[each].shape)} in the result")
        elif each in outputs:
            found[each] += [tensor, *template.replicas.get(each, ())]
        elif template.tied.get(each) in outputs:
            found[template.tied[each]] += [tensor, *template.replicas.get(each, ())]
        elif each == HEAD and ties(template.config) and (tied := next(filter(_is_embedding, outputs), None)) is not None:
            found[tied].append(tensor)
        else:
            problems.append(f"{each!r} of it is not in the result")
    if problems:
        raise FormatError(f"{template.source} ({name}): cannot take the result:\n{listed(problems)}")
    for tensor in (each for places in found.values() for each in places):
        if not is_coded(tensor):
            places_of(tensor)
    return {each: tuple(places) for each, places in found.items()}


def _is_embedding(name: str) -> bool:
    return name.endswith(EMBEDDINGS)


def _moments_inside(checkpoint: Checkpoint, averaged: bool) -> dict[Key, Tensor]:
    """Return the moments that lie in the files of the weights: in pickles, never in safetensors."""
    if not container_at(_root(checkpoint)).pickled:
        return {}
    return moments_in([file for file in checkpoint.files if isinstance(file, Path)], averaged)


def _coefficients(spec: MergeSpec, count: int) -> NDArray[np.float64]:
    """Return the one coefficient that every row has in all of the model.

    Raises:
        UsageError: If there is no such, or one is negative.
    """
    if spec.method.edits or spec.method.space != "none" or spec.variation is not None:
        raise UsageError(
            f"--optimizer average: {spec.name} gives a checkpoint no one weight, by which its optimizer's state could be "
            "averaged; --optimizer keep leaves that of one checkpoint"
        )
    found = np.atleast_2d(spec.solve("", None))
    if len(found) > 1 or found.shape[1] != count:
        raise UsageError("--optimizer average is of one average; give one schedule, one window and one eta")
    if (found < 0).any():
        raise UsageError(
            f"--optimizer average: the coefficients {found[0].tolist()} are not all positive, and a second moment must not "
            "become negative; --optimizer keep leaves the state of one checkpoint"
        )
    return found[0]


def _moments(rows: Sequence[Checkpoint], template: Checkpoint) -> list[list[Tensor]]:
    """Return the moments of every row, in one order, that of the template last.

    Raises:
        FormatError: If a row has others.
    """
    everything = [_moments_of(each) for each in rows]
    target = next(found for each, found in zip(rows, everything) if each is template)
    if not target:
        raise UsageError(f"{template.source}: no state of an optimizer that could be averaged was found; leave --optimizer out")
    for each, found in zip(rows, everything):
        odd = next((key for key in target.keys() ^ found.keys()), None)
        odd = odd or next((key for key, tensor in target.items() if _cut(found[key]) != _cut(tensor)), None)
        if odd is not None:
            raise FormatError(
                f"{each.source}: its optimizer's {'.'.join(filter(None, odd))} is not as in {template.source}: another "
                "optimizer, another number of ranks, or one that had taken no step"
            )
    return [[*(found[key] for found in everything), tensor] for key, tensor in target.items()]


def _cut(tensor: Tensor) -> Any:
    sizes = [getattr(place, "length", None) or getattr(place, "shape", ()) for place in places_of(tensor)]
    return tensor.dtype, tensor.shape, sizes


def _moments_of(checkpoint: Checkpoint, averaged: bool = True) -> dict[Key, Tensor]:
    """Return all moments of a checkpoint.

    Raises:
        UsageError: If they lie with another copy of the weights.
    """
    root = _root(checkpoint)
    own = [file for file in files_in(root) if is_optimizer(file, root) and file not in checkpoint.files]
    if zero := next((file for file in own if file.name.endswith("optim_states.pt")), None):
        raise UsageError(
            f"{checkpoint.source}: DeepSpeed's {zero.relative_to(root)} holds the weights once more, from which training would "
            f"go on; give {zero.parent.relative_to(root)}, whose weights those are"
        )
    found = {**_moments_inside(checkpoint, averaged), **moments_in(own, averaged)}
    return found if root.is_dir() else {("", *keys): each for (_, *keys), each in found.items()}  # a file by its step
