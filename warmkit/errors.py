"""Every exception a user can cause.

    WarmkitError                    exit 1: the run failed on its input or its environment
    ├── CheckpointError             a checkpoint cannot be read
    │   ├── FormatError             a safetensors file, index or config lies or is broken
    │   ├── StateDictError          a file has no state dict of the name that was asked for
    │   ├── UnsupportedError        readable, but of a kind that warmkit refuses (pickle, fp8, adapters)
    │   ├── ChangedError            a file of a checkpoint was replaced or overwritten while it was read
    │   ├── HubError                a Hub repository cannot be reached or has no weights
    │   └── TransferError           the bytes of a remote file do not arrive; what was written stays and can be resumed
    ├── MismatchError               checkpoints that cannot be averaged with each other
    ├── NonFiniteError              NaN or infinity in an input, or an overflow of the output type
    ├── DegenerateError             the geometry of the task vectors admits no answer (antiparallel)
    ├── DataError                   rows of a data set that cannot be used, all of them with their lines
    ├── EndpointError               an endpoint gave no answer that could be used
    ├── ClusterError                a Ray cluster cannot be reached, has no place for a run, or is lost
    ├── OutputError                 the destination cannot be written
    ├── VerificationError           an output on disk is not what its manifest says
    ├── ScoreError                  a scorer failed or gave no number
    ├── TrainingError               a run that cannot go on: a loss that is not finite, no memory
    └── UsageError                  exit 2: an unknown name, or a value out of range
        └── RecipeError             exit 2: the same, in a recipe, with its line

Messages take one or two lines: what was expected, what was found, which file, tensor or key, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from warmkit.words import VALUES


class WarmkitError(Exception):
    """Base of all errors that a user can cause and mend; the command line maps these and nothing else."""

    exit_code = 1


class CheckpointError(WarmkitError):
    """A checkpoint cannot be read."""


class FormatError(CheckpointError):
    """A safetensors file, an index or a config is malformed."""


class StateDictError(CheckpointError):
    """A file has no state dict of the name that was asked for.

    Attributes:
        alone: Whether it holds one alone, so that there is nothing to choose.
    """

    def __init__(self, message: str, *, alone: bool) -> None:
        super().__init__(message)
        self.alone = alone


class UnsupportedError(CheckpointError):
    """A checkpoint is of a kind that warmkit refuses by name."""


class ChangedError(CheckpointError):
    """A file of a checkpoint changed while it was read."""


class HubError(CheckpointError):
    """A Hub repository cannot be fetched."""


class TransferError(CheckpointError):
    """The bytes of a remote file do not arrive as they should; trying again later may help."""


class MismatchError(WarmkitError):
    """Checkpoints differ in names, shapes, kinds, configs or vocabularies."""


class NonFiniteError(WarmkitError):
    """An input holds NaN or infinity, or a result overflows its type."""


class DegenerateError(WarmkitError):
    """The angles of the task vectors admit no merge."""


class DataError(WarmkitError):
    """Rows of a data set cannot be used; the message names each with file and line."""


class EndpointError(WarmkitError):
    """An endpoint gave no answer that could be used."""


class ClusterError(WarmkitError):
    """A Ray cluster cannot be reached, has no place for a run, or is lost."""


class OutputError(WarmkitError):
    """The destination cannot be written."""


class VerificationError(WarmkitError):
    """An output is not what its manifest says."""


class ScoreError(WarmkitError):
    """A scorer failed or gave no number."""


class TrainingError(WarmkitError):
    """A training run cannot go on."""


class UsageError(WarmkitError):
    """An unknown name or a value out of range."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that cannot be followed; the message starts with file and line."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest valid name, or the same in another word; else list the valid names."""
    names = list(valid)
    if (word := VALUES.get(str(name).lower())) in names:
        return f"; did you mean {word!r}?"
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; choose from: {', '.join(names)}"


def listed(problems: list[str], limit: int = 12) -> str:
    """Join problems of one kind, one a line, naming how many were left out past `limit`."""
    lines = [f"  {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)


def out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory ran out, on the CPU or a GPU; torch has two ways to say so."""
    words = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in words or "out of memory" in words
