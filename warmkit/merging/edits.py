"""Edits: methods that change task vectors element by element, which no linear combination can say.

An edit maps the task vectors of a group to one merged task vector. It sees the group block by block, as often as it needs:
it is a chain of stages, of which each `Reading` measures something and ends in the next stage, and the last, a `Writing`,
makes the merged task vector. So the exact order statistics of a tensor of any size are found in constant memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

from warmkit.merging import machine_code

Block: TypeAlias = NDArray[Any]
"""[V, n]: the same n elements of V checkpoints in their storage type, the initialisation first."""

Vectors: TypeAlias = NDArray[np.float64]
"""[M, n] float64: the same n elements of M task vectors."""

Read: TypeAlias = Callable[[int, int], Block]
"""From the first element and the one after the last, of the tensor at hand, to a block that is valid until the next call."""

CHUNK = 1 << 15  # elements whose float64 copies of a few models stay in the second-level cache


@dataclass(frozen=True)
class Place:
    """A run of elements of one tensor.

    Attributes:
        number: Its rank among the places of its group, the same in every stage.
        tensor: The tensor's name.
        shape: The tensor's dimensions.
        start: First element.
        stop: One after the last.
    """

    number: int
    tensor: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Reading(ABC):
    """A pass over a group that measures. Both methods are called from any thread; `then` once, after every `measure`."""

    @abstractmethod
    def measure(self, place: Place, read: Read) -> Any:
        """Return what is to be known of one place."""

    @abstractmethod
    def then(self, parts: Sequence[Any]) -> Stage:
        """Return the next stage, from the parts in the order of their places."""


class Writing(ABC):
    """The last pass over a group."""

    @abstractmethod
    def task_vector(self, place: Place, inputs: Block, read: Read, out: NDArray[Any]) -> None:
        """Write the merged task vector of one place.

        Args:
            place: Which one.
            inputs: [V, n], its elements.
            read: For elements beyond the place; does not touch `inputs`.
            out: [n] float32 or float64.
        """


Stage: TypeAlias = Reading | Writing

Edit: TypeAlias = Callable[[int], Stage]
"""From the number of elements of a group to the first stage."""

Mask: TypeAlias = Callable[[int, Vectors], None]
"""From the first element (counted from the place's) and a chunk of task vectors to the same, edited in place."""

Fuse: TypeAlias = Callable[[Vectors, NDArray[Any]], None]
"""From a chunk of edited task vectors to the merged one, written to the second argument."""


class Masked(Writing):
    """Edit each task vector by itself, then fuse them.

    Args:
        mask: From a place to what edits its chunks.
        fuse: What makes one vector of them.
    """

    def __init__(self, mask: Callable[[Place, Read], Mask], fuse: Fuse) -> None:
        self._mask, self._fuse = mask, fuse

    def task_vector(self, place: Place, inputs: Block, read: Read, out: NDArray[Any]) -> None:
        mask = self._mask(place, read)
        for first, vectors in chunks(inputs):
            mask(first, vectors)
            self._fuse(vectors, out[first : first + vectors.shape[1]])


def chunks(inputs: Block) -> Iterator[tuple[int, Vectors]]:
    """Yield the task vectors of a block [V, n] in chunks [M, up to CHUNK], each with its first element; one buffer for all."""
    size = inputs.shape[1]
    models = len(inputs) - 1
    buffer = np.empty(models * min(CHUNK, size))
    for first in range(0, size, CHUNK):
        count = min(CHUNK, size - first)
        vectors = buffer[: models * count].reshape(models, count)
        machine_code.edits.task_vectors(inputs, first, vectors)
        yield first, vectors


def summed(weights: NDArray[np.float64]) -> Fuse:
    """Return sum_m w_m d_m."""

    def fuse(vectors: Vectors, out: NDArray[Any]) -> None:
        machine_code.edits.weighted_sum(vectors, weights, np.empty(out.size), out)

    return fuse


def elected(votes: NDArray[np.float64], weights: NDArray[np.float64], normalize: bool) -> Fuse:
    """Return sum_m w_m d_m over the models whose v_m d_m has the sign of sum_m v_m d_m, element by element.

    Where that sum is zero no sign is elected and the result is zero. With `normalize` the result is divided by the sum of
    |w_m| over those models: TIES' disjoint mean.

    Source: Yadav et al., 2023, "TIES-Merging", section 4, steps 2 and 3.
    """

    def fuse(vectors: Vectors, out: NDArray[Any]) -> None:
        scratch = np.empty((3, out.size))
        machine_code.edits.elected_sum(vectors, votes, weights, normalize, *scratch, out)

    return fuse


def stream_key(seed: int, tensor: str, model: int) -> np.uint64:
    """Return the key of the random numbers of one tensor of one model; they do not depend on anything else."""
    return np.uint64(xxhash.xxh3_64_intdigest(f"{seed}/{model}/{tensor}".encode()))
