"""The stream: worker threads read blocks at known places, compute, and write at known places.

Nothing holds a whole tensor. With a method that reads the Gram matrix, the blocks of a group are read twice: once for
its products, then, as soon as the group's coefficients are known and while its bytes are still near, for the sum.
Memory is a few blocks per thread, whatever the size of the model.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from warmkit.checkpoints.digests import BLOCK, block_digests, tensor_digest
from warmkit.checkpoints.dtypes import DType
from warmkit.checkpoints.sources import Source
from warmkit.errors import DegenerateError, MismatchError, NonFiniteError
from warmkit.merging.kernels import Block, Space
from warmkit.merging.types import Coefficients, Gram

AHEAD = 8  # blocks announced to the kernel before they are read
# A task takes one block, or two where the rows still fit into this: each task takes the interpreter lock a dozen times, and
# threads that wait for it cost more than the cache that larger blocks overflow.
TASK_BYTES, MOST_BLOCKS = 1 << 24, 2


class Kernels(Protocol):
    """`combine` and `gram` on some device; see `merging.kernels`."""

    def empty(self, shape: tuple[int, ...], storage: str) -> Block: ...

    def combine(self, coefficients: Coefficients, inputs: Block, output: Block) -> bool: ...

    def finite(self, inputs: Block) -> bool: ...

    def gram(self, inputs: Block, space: Space) -> Gram: ...

    def convert(self, source: Block, target: Block) -> None: ...


class Sink(Protocol):
    """Where the results go, from any thread."""

    def write(self, output: int, tensor: str, start: int, data: memoryview) -> None:
        """Store the elements of output number `output` from element `start` on."""
        ...

    def solved(self, group: str, gram: Gram) -> None:
        """Take note that the Gram matrix of a group is known."""
        ...

    def finished(self, tensor: str, digests: Digests, nbytes: int) -> None:
        """Take note that every block of a tensor has been written."""
        ...


@dataclass(frozen=True)
class Digests:
    """Digests of one tensor: one for each input row and one for each output."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


Solve: TypeAlias = Callable[[str, "Gram | None"], Coefficients]
"""From a group's name and Gram matrix (None if not needed) to the coefficients [outputs, rows]."""


@dataclass(frozen=True)
class Job:
    """What to compute, without where it comes from or goes.

    Attributes:
        rows: The inputs, in the order of the coefficients; the initialisation first where it takes part.
        groups: Names of the float tensors of each group.
        exact: Names of the integer and boolean tensors, copied from the first row after comparison.
        dtypes: Output type of every tensor.
        outputs: How many results are written from one reading.
        space: Whose Gram matrix to take, None for methods that need none.
        solve: Coefficients of a group.
        allow_nonfinite: Let NaN and infinity pass.
        known: Gram matrices that need no reading, by tensor: adapters know the products of their task vectors.
    """

    rows: Sequence[Source]
    groups: Mapping[str, Sequence[str]]
    exact: Sequence[str]
    dtypes: Mapping[str, DType]
    outputs: int
    space: Space | None
    solve: Solve
    allow_nonfinite: bool = False
    known: Mapping[str, Callable[[], Gram]] = field(default_factory=lambda: {})

    def elements(self, tensor: str) -> int:
        return int(np.prod(self.rows[0].shape(tensor), dtype=np.int64))

    def blocks(self, tensor: str) -> int:
        return -(-self.elements(tensor) // BLOCK)

    def starts(self, tensor: str) -> range:
        """Return the first block of every task of a tensor."""
        row_bytes = sum(row.dtype(tensor).itemsize for row in self.rows)
        step = min(MOST_BLOCKS, max(1, TASK_BYTES // (row_bytes * BLOCK)))
        return range(0, self.blocks(tensor), step)

    def bytes_read(self, tensor: str) -> int:
        """Bytes that one pass over a tensor reads."""
        return sum(self.elements(tensor) * row.dtype(tensor).itemsize for row in self.rows)

    def passes(self, tensor: str) -> int:
        return 2 if self.space is not None and tensor not in self.exact and tensor not in self.known else 1


@dataclass
class Done:
    """What an earlier, interrupted run has already written."""

    grams: dict[str, Gram] = field(default_factory=lambda: {})
    tensors: dict[str, Digests] = field(default_factory=lambda: {})


Task: TypeAlias = Callable[["_Workspace"], None]


class _Workspace:
    """The buffers of one thread."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self._blocks: dict[tuple[str, int, str], Block] = {}

    def block(self, purpose: str, rows: int, size: int, storage: str) -> Block:
        """Return a [rows, size] buffer, part of the same one at every call."""
        key = (purpose, rows, storage)
        if key not in self._blocks or self._blocks[key].shape[1] < size:
            self._blocks[key] = self.kernels.empty((rows, size), storage)
        return self._blocks[key][:, :size]


class _Tensor:
    """The progress of one tensor: digests by block, and how many tasks are still to come."""

    def __init__(self, rows: int, outputs: int, blocks: int, tasks: int) -> None:
        self.inputs = [[b""] * blocks for _ in range(rows)]
        self.outputs = [[b""] * blocks for _ in range(outputs)]
        self.missing = tasks

    def digests(self) -> Digests:
        return Digests(tuple(map(tensor_digest, self.inputs)), tuple(map(tensor_digest, self.outputs)))


class Stream:
    """One run over all blocks of a job.

    Args:
        job: What to compute.
        kernels: How.
        sink: Where to; None to take Gram matrices only.
        done: What need not be done again.
        advance: Called from worker threads with the bytes read and written by a task.
    """

    def __init__(
        self,
        job: Job,
        kernels: Kernels,
        sink: Sink | None,
        done: Done | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.job, self.kernels, self.sink, self.advance = job, kernels, sink, advance
        done = done or Done()
        self.digests: dict[str, Digests] = dict(done.tensors)
        self.grams: dict[str, Gram] = dict(done.grams)
        self.coefficients: dict[str, Coefficients] = {}
        self._ready: deque[Iterator[Task]] = deque()
        self._tensors: dict[str, _Tensor] = {}
        self._coming = self._plan()
        self._outstanding = 0
        self._state = threading.Condition()
        self._error: BaseException | None = None

    def run(self, threads: int) -> None:
        """Do every task; return when all are done, or raise what the first failing one raised."""
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                while worker.is_alive():
                    worker.join(0.2)
        except BaseException as error:  # Ctrl-C and SIGTERM arrive here, in the main thread
            self._fail(error)
            for worker in workers:
                worker.join()
            raise
        if self._error is not None:
            raise self._error

    # ---- scheduling -------------------------------------------------------------------------------------------------

    def _plan(self) -> Iterator[Iterator[Task]]:
        """Yield batches of tasks that can start at any time; products come before the sums that wait for them."""
        for group, names in self.job.groups.items():
            todo = [name for name in names if name not in self.digests]
            if self.job.space is not None and not any(map(self.job.elements, names)):
                vectors = len(self.job.rows) - (self.job.space == "task vectors")
                self.grams[group] = np.zeros((vectors, vectors))
            if self.job.space is None or group in self.grams:
                self._solve(group)
                yield self._sums(group, todo)
            else:
                yield self._products(group, names, todo)
        for name in self.job.exact:
            if name not in self.digests:
                yield self._tasks(name, self._copy)

    def _sums(self, group: str, names: Sequence[str]) -> Iterator[Task]:
        for name in names:
            yield from self._tasks(name, lambda work, name, block: self._combine(work, group, name, block))

    def _tasks(self, name: str, task: Callable[[_Workspace, str, int], None]) -> Iterator[Task]:
        starts = self.job.starts(name)
        progress = _Tensor(len(self.job.rows), self.job.outputs, self.job.blocks(name), len(starts))
        self._tensors[name] = progress
        if not starts:
            self._finish(name, progress)
        for block in starts:
            yield lambda work, block=block: task(work, name, block)

    def _products(self, group: str, names: Sequence[str], todo: Sequence[str]) -> Iterator[Task]:
        places = [(name, block) for name in names for block in self._blocks_for_products(name)]
        parts: list[Gram | None] = [None] * len(places)
        missing = len(places)

        def task(work: _Workspace, place: int) -> None:
            nonlocal missing
            parts[place] = self._gram(work, *places[place])
            with self._state:
                missing -= 1
                if missing:
                    return
            # summed in the order of the blocks, whichever thread finished last
            self.grams[group] = np.sum([part for part in parts if part is not None], axis=0)
            if self.sink is None:
                return
            self.sink.solved(group, self.grams[group])
            self._solve(group)
            with self._state:
                self._ready.appendleft(self._sums(group, todo))
                self._state.notify_all()

        for place in range(len(places)):
            yield lambda work, place=place: task(work, place)

    def _blocks_for_products(self, name: str) -> range:
        return range(1) if name in self.job.known else self.job.starts(name)

    def _solve(self, group: str) -> None:
        self.coefficients[group] = self.job.solve(group, self.grams.get(group))

    def _next(self) -> Task | None:
        with self._state:
            while self._error is None:
                while self._ready:
                    task = next(self._ready[0], None)
                    if task is not None:
                        self._outstanding += 1
                        return task
                    self._ready.popleft()
                batch = next(self._coming, None)
                if batch is not None:
                    self._ready.append(batch)
                elif self._outstanding:
                    self._state.wait()
                else:
                    self._state.notify_all()
                    return None
            return None

    def _work(self) -> None:
        work = _Workspace(self.kernels)
        try:
            while (task := self._next()) is not None:
                task(work)
                with self._state:
                    self._outstanding -= 1
                    if not self._outstanding:
                        self._state.notify_all()
        except BaseException as error:  # handed to the thread that waits
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._state:
            self._error = self._error or error
            self._state.notify_all()

    # ---- tasks ------------------------------------------------------------------------------------------------------

    def _load(self, work: _Workspace, name: str, block: int, hashes: _Tensor | None) -> Block:
        """Read the task of every row that starts at a block into [rows, n], in the one storage type that holds them all."""
        rows, start = self.job.rows, block * BLOCK
        count = min(BLOCK * self.job.starts(name).step, self.job.elements(name) - start)
        stored = [row.dtype(name).storage for row in rows]
        common = stored[0] if len(set(stored)) == 1 else "float64" if "float64" in stored else "float32"
        inputs = work.block("inputs", len(rows), count, common)
        for place, row in enumerate(rows):
            if block % AHEAD == 0:
                row.ahead(name, start + AHEAD * BLOCK, AHEAD * BLOCK)
            raw = inputs[place] if stored[place] == common else work.block("raw", 1, count, stored[place])[0]
            view = raw.data.cast("B")
            row.read(name, start, view)
            if hashes is not None:
                digests = block_digests(view, raw.itemsize)
                hashes.inputs[place][block : block + len(digests)] = digests
            if stored[place] != common:
                work.kernels.convert(raw, inputs[place])
        return inputs

    def _gram(self, work: _Workspace, name: str, block: int) -> Gram:
        assert self.job.space is not None
        if name in self.job.known:
            return self.job.known[name]()
        inputs = self._load(work, name, block, None)
        gram = work.kernels.gram(inputs, self.job.space)
        if not np.isfinite(gram).all():
            self._blame_input(work, name, inputs)
            raise DegenerateError(f"tensor {name!r} holds NaN or infinity, so its task vectors have no angle; use lerp")
        self.advance(sum(inputs.shape[1] * row.dtype(name).itemsize for row in self.job.rows))
        return gram

    def _combine(self, work: _Workspace, group: str, name: str, block: int) -> None:
        progress, dtype = self._tensors[name], self.job.dtypes[name]
        inputs = self._load(work, name, block, progress)
        count = inputs.shape[1]
        output = work.block("output", 1, count, dtype.storage)[0]
        view = output.data.cast("B")
        for number, coefficients in enumerate(self.coefficients[group]):
            finite = work.kernels.combine(coefficients, inputs, output)
            if not finite and not self.job.allow_nonfinite:
                self._blame_input(work, name, inputs)
                raise NonFiniteError(
                    f"tensor {name!r}: the merge exceeds {dtype.largest:g}, the largest {dtype.torch_name}; "
                    "choose a wider --dtype"
                )
            digests = block_digests(view, output.itemsize)
            progress.outputs[number][block : block + len(digests)] = digests
            self._write(number, name, block, view)
        self._advance(name, count, progress)

    def _copy(self, work: _Workspace, name: str, block: int) -> None:
        progress = self._tensors[name]
        inputs = self._load(work, name, block, progress)
        for row, values in zip(self.job.rows[1:], inputs[1:]):
            if not np.array_equal(values, inputs[0]):
                kind = self.job.dtypes[name].torch_name
                raise MismatchError(
                    f"tensor {name!r} ({kind}) differs between {row.name} and {self.job.rows[0].name}; tensors of integers "
                    "are copied, so they must agree"
                )
        view = inputs[0].data.cast("B")
        digests = block_digests(view, inputs.itemsize)
        for number in range(self.job.outputs):
            progress.outputs[number][block : block + len(digests)] = digests
            self._write(number, name, block, view)
        self._advance(name, inputs.shape[1], progress)

    def _write(self, output: int, name: str, block: int, view: memoryview) -> None:
        assert self.sink is not None
        self.sink.write(output, name, block * BLOCK, view)

    def _advance(self, name: str, count: int, progress: _Tensor) -> None:
        written = count * self.job.dtypes[name].itemsize * self.job.outputs
        self.advance(written + sum(count * row.dtype(name).itemsize for row in self.job.rows))
        with self._state:
            progress.missing -= 1
            last = not progress.missing
        if last:
            self._finish(name, progress)

    def _finish(self, name: str, progress: _Tensor) -> None:
        self.digests[name] = progress.digests()
        del self._tensors[name]
        assert self.sink is not None
        self.sink.finished(name, self.digests[name], self.job.elements(name) * self.job.dtypes[name].itemsize)

    def _blame_input(self, work: _Workspace, name: str, inputs: Block) -> None:
        for row, values in zip(self.job.rows, inputs):
            if not self.job.allow_nonfinite and not work.kernels.finite(values.reshape(1, -1)):
                raise NonFiniteError(f"tensor {name!r} of {row.name} holds NaN or infinity; --allow-nonfinite lets it pass")
