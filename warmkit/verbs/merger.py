"""Merges in memory: state dicts and checkpoints to state dicts, nothing written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from warmkit.common.display import Displayed
from warmkit.common.units import number
from warmkit.engine.devices import cores, find_kernels
from warmkit.engine.digests import Digests
from warmkit.engine.inputs import FileSource
from warmkit.engine.job import Done, build_job, input_rows
from warmkit.engine.merge_options import PathLike, Varying, check_models
from warmkit.engine.spec import MergeSpec, merge_spec
from warmkit.engine.stream import Stream
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtypes import parse_output_dtype
from warmkit.formats.memory import in_memory
from warmkit.layouts.compatibility import align
from warmkit.layouts.opening import open_inputs
from warmkit.merging.types import Gram
from warmkit.sources.files import Files

if TYPE_CHECKING:
    import torch

Weights: TypeAlias = "PathLike | Mapping[str, torch.Tensor]"


class Merger(Displayed):
    """Merger of models in memory, for many etas or mixes of the same models; nothing is written.

    The products of the task vectors are computed once, at the first merge that needs them.

    Args:
        models: Checkpoints, or state dicts (tensors by name), compared as for a merge on disk. They may lie in several layouts;
            what names mean is told by the config of a checkpoint among them.
        init: What they were fine-tuned from.
        method: A name in `warmkit.METHODS`.
        threads: Worker threads; by default one per core.
        device: `cpu` or `cuda`, for the sums.
        allow_nonfinite: Let NaN and infinity pass.
        allow_pickle: Also read what torch saved, as `open_checkpoint` says.
        state_dict: Which to read of several in a file, as `open_checkpoint` says.
        **parameters: `granularity`, `antiparallel` and those of the method, as for `merge`.

    Raises:
        MismatchError: If the models do not hold the same tensors.
        WarmkitError: What `merge` raises of its inputs.

    Examples:
        >>> import torch
        >>> init, a, b = ({"w": torch.tensor(row)} for row in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]))
        >>> merger = Merger([a, b], init=init)
        >>> [round(float(merger.state_dict(eta=eta)["w"].norm()), 3) for eta in (0.5, 1.0)]
        [0.5, 1.0]
    """

    def __init__(
        self,
        models: Sequence[Weights],
        *,
        init: Weights | None = None,
        method: str = "slerp",
        threads: int | None = None,
        device: str = "cpu",
        allow_nonfinite: bool = False,
        allow_pickle: bool = False,
        state_dict: str | None = None,
        **parameters: Any,
    ) -> None:
        check_models(models)
        self._method, self._parameters = method, parameters
        given = models if init is None else [init, *models]
        everything, self._opened = _sources(
            given, ["init"] * (init is not None), {"allow_pickle": allow_pickle, "state_dict": state_dict}
        )
        self._init, self._models = (None, everything) if init is None else (everything[0], everything[1:])
        self._threads, self._kernels = threads or cores(), find_kernels(device)
        self._allow_nonfinite = allow_nonfinite
        self._grams: dict[bool, dict[str, Gram]] = {}  # with the init among the rows, or without
        self.spec()

    def _facts(self) -> Mapping[str, object]:
        first = self._models[0]
        return {
            "method": self._method,
            "init": self._init and self._init.name,
            "models": [each.name for each in self._models],
            "tensors": len(first.names),
            "parameters": number(sum(math.prod(first.shape(name)) for name in first.names)),
            **self._parameters,
        }

    def spec(self, **parameters: Any) -> MergeSpec:
        """Return the checked parameters of one merge.

        Args:
            **parameters: As of `state_dict`.

        Raises:
            UsageError: If one is unknown or out of range.
        """
        return merge_spec(self._method, len(self._models), **{**self._parameters, **parameters})

    def state_dict(
        self,
        *,
        eta: float = 1.0,
        lambda_: Varying | None = None,
        coefficients: Sequence[Varying] | None = None,
        dtype: str | None = None,
        out: dict[str, torch.Tensor] | None = None,
        **parameters: Any,
    ) -> dict[str, torch.Tensor]:
        """Return the merge at one eta and one mix, as tensors on the CPU.

        Args:
            eta: LITI's update rate.
            lambda_: Of two models, the share of the second; or a gradient over the layers, as for `merge`.
            coefficients: One per model instead.
            dtype: Of the result; by default the models'.
            out: What an earlier call returned, to be overwritten: fresh memory costs more than the sums.
            **parameters: Of the method, in place of those given to the `Merger`.

        Returns:
            Tensors by name, with the shapes of the models'.
        """
        import torch

        spec = self.spec(eta=eta, lambda_=lambda_, coefficients=coefficients, **parameters)
        rows = input_rows(spec, self._init, self._models)
        names = rows[0].names
        wanted = parse_output_dtype(dtype) if dtype else None
        job = build_job(spec, rows, names, wanted, self._allow_nonfinite)
        result: dict[str, torch.Tensor] = {}
        for name in names:
            shape, kind = rows[0].shape(name), getattr(torch, job.dtypes[name].torch_name)
            old = (out or {}).get(name)
            fits = old is not None and old.shape == shape and old.dtype == kind
            result[name] = old if old is not None and fits else torch.empty(shape, dtype=kind)
        stream = Stream(job, self._kernels, _MemorySink(result), Done(grams=self._grams.get(spec.uses_init, {})))
        stream.run(self._threads)
        for checkpoint in self._opened:
            checkpoint.check()
        self._grams[spec.uses_init] = stream.grams
        return result


def merged_state_dict(
    models: Sequence[Weights],
    *,
    init: Weights | None = None,
    method: str = "slerp",
    eta: float = 1.0,
    lambda_: float | None = None,
    coefficients: Sequence[float] | None = None,
    dtype: str | None = None,
    **parameters: Any,
) -> dict[str, torch.Tensor]:
    """Merge models in memory and return the state dict; for several etas or mixes, keep a `Merger`.

    Args:
        models: As of `Merger`.
        init: What they were fine-tuned from.
        method: A name in `warmkit.METHODS`.
        eta: LITI's update rate.
        lambda_: Of two models, the share of the second.
        coefficients: One per model instead.
        dtype: Of the result; by default the models'.
        **parameters: As of `Merger`.

    Returns:
        Tensors by name, on the CPU.

    Examples:
        >>> import torch
        >>> a, b = {"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}
        >>> merged_state_dict([a, b], method="lerp", lambda_=0.25)["w"].item()
        1.5
    """
    merger = Merger(models, init=init, method=method, **parameters)
    return merger.state_dict(eta=eta, lambda_=lambda_, coefficients=coefficients, dtype=dtype)


def _sources(
    weights: Sequence[Weights], names: Sequence[str], how: Mapping[str, Any]
) -> tuple[list[FileSource], list[Checkpoint]]:
    """Read state dicts from memory, and checkpoints block by block from their files, in one layout, aligned as on disk."""
    labels = [*names, *(f"model {number + 1}" for number in range(len(weights)))]
    given = [in_memory(name, each) if isinstance(each, Mapping) else each for name, each in zip(labels, weights)]
    opened = open_inputs(given, how)
    shared = Files({file: known for each in opened for file, known in each.identities.items()})
    rows = [FileSource(each.source, known, shared) for each, known in zip(opened, align(opened).entries)]
    return rows, opened


class _MemorySink:
    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        import torch

        self._views = {name: t.reshape(-1).view(torch.uint8).numpy().data for name, t in tensors.items()}
        self._itemsizes = {name: tensor.element_size() for name, tensor in tensors.items()}

    def write(self, output: int, tensor: str, start: int, data: memoryview) -> None:
        first = start * self._itemsizes[tensor]
        self._views[tensor][first : first + data.nbytes] = data

    def solved(self, group: str, gram: Gram) -> None: ...

    def finished(self, tensor: str, digests: Digests, nbytes: int) -> None: ...
