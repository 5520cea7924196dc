"""The stream: worker threads read blocks at known places, compute, and write at known places.

Nothing holds a whole tensor. With a method that reads the Gram matrix, the blocks of a group are read twice: once for
its products, then, as soon as the group's coefficients are known and while its bytes are still near, for the sum. One
that edits task vectors (`merging.edits`) reads them once for each of its stages. Memory is a few blocks per thread,
whatever the size of the model.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np
import xxhash

from warmkit.engine.devices import Kernels
from warmkit.engine.digests import BLOCK, Digests, block_digests, tensor_digest
from warmkit.engine.inputs import Apart, Source
from warmkit.engine.job import Done, Job
from warmkit.engine.lookahead import Lookahead, Read
from warmkit.errors import ChangedError, DegenerateError, MismatchError, NonFiniteError
from warmkit.merging.edits import Place, Reading, Stage, Writing
from warmkit.merging.kernels import Block
from warmkit.merging.types import Coefficients, Gram

if TYPE_CHECKING:
    from warmkit.merging.low_rank import AddingKernels

SAMPLE = 1 << 15  # bytes of a task that are compared where it is read twice: digests of all cost a quarter of the work
TILED = 1 << 18  # elements of every row summed at once: with fewer, calls cost more than memory; more leave the cache
AHEAD = 8  # blocks announced to the kernel before they are read
T = TypeVar("T")


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


Sums: TypeAlias = Sequence[Apart]
"""Every row of a tensor as a base and its products; nothing where the rows are read as they are."""

Task: TypeAlias = Callable[["_Workspace"], None]


class _Workspace:
    """The buffers of one thread."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self._blocks: dict[tuple[str, int, str], Block] = {}

    def block(self, purpose: str, rows: int, size: int, storage: str) -> Block:
        """Return a [rows, size] buffer, part of the same one at every call.

        It is contiguous: rows with gaps between them are another type to the compiler, with slower loops that sum in another
        order, and which of the two a block met would depend on what its thread did before.
        """
        key = (purpose, rows, storage)
        if key not in self._blocks or self._blocks[key].size < rows * size:
            self._blocks[key] = self.kernels.empty((rows * size,), storage)
        return self._blocks[key][: rows * size].reshape(rows, size)


class _Tensor:
    """The progress of one tensor: digests by block, and how many tasks are still to come."""

    def __init__(self, rows: int, outputs: int, blocks: int, tasks: int) -> None:
        self.inputs = [[b""] * blocks for _ in range(rows)]
        self.outputs = [[b""] * blocks for _ in range(outputs)]
        self.missing = tasks

    def digests(self) -> Digests:
        return Digests(tuple(map(tensor_digest, self.inputs)), tuple(map(tensor_digest, self.outputs)))


class _BlockDigests:
    """Digests of successive blocks, of elements that come tile by tile; a tile lies in one block."""

    def __init__(self) -> None:
        self._done, self._state, self._bytes = list[bytes](), xxhash.xxh3_128(), 0

    def add(self, data: memoryview, itemsize: int) -> None:
        self._state.update(data)
        self._bytes += data.nbytes
        if self._bytes == BLOCK * itemsize:
            self._end()

    def _end(self) -> None:
        self._done.append(self._state.digest())
        self._state, self._bytes = xxhash.xxh3_128(), 0

    def finished(self) -> list[bytes]:
        """Return them, the last one of a shorter block perhaps."""
        if self._bytes:
            self._end()
        return self._done


def _bytes_of_rows(block: Block) -> list[memoryview]:
    """Return the bytes of each row of a contiguous block; numpy takes seven times as long for it."""
    whole, size = block.reshape(-1).data.cast("B"), block.shape[1] * block.itemsize
    return [whole[first : first + size] for first in range(0, whole.nbytes, size)]


def _twin(sums: Sums, place: int) -> int | None:
    """Return an earlier row of the same bytes: adapters on one base, or on the init. Of a network every read is awaited."""
    if not sums or not isinstance(sums[place].base.file, Path):
        return None
    return next((other for other in range(place) if sums[other].place == sums[place].place), None)


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
        self._copies: dict[str, list[str]] = {}
        for copy, name in job.twins.items():
            self._copies.setdefault(name, []).append(copy)
        whole = {name: found for name, found in done.tensors.items() if done.tensors.keys() >= set(self._copies.get(name, ()))}
        self.digests: dict[str, Digests] = whole
        self.grams: dict[str, Gram] = dict(done.grams)
        self.coefficients: dict[str, Coefficients] = {}
        self._ready: deque[Iterator[Task]] = deque()
        self._tensors: dict[str, _Tensor] = {}
        self._apart: dict[str, Sums] = {}
        self._before: dict[tuple[str, int, int, int], bytes] = {}  # samples of an earlier reading of the same elements
        self._coming = self._plan()
        far = job.edit is None and any(row.far for row in job.rows)
        self._lookahead = Lookahead(job.rows, self._reads()) if far else None
        self._outstanding = 0
        self._state = threading.Condition()
        self._error: BaseException | None = None

    def run(self, threads: int) -> None:
        """Do every task; return when all are done, or raise what the first failing one raised."""
        if self._lookahead is not None:
            self._lookahead.start()
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
                if self.sink is None:
                    continue
            if self.job.space is None or group in self.grams:
                self._solve(group)
                yield self._outputs(group, names, todo)
            else:
                yield self._products(group, names, todo)
        for name in self.job.exact:
            if name not in self.digests:
                yield self._tasks(name, self._copy)

    def _outputs(self, group: str, names: Sequence[str], todo: Sequence[str]) -> Iterator[Task]:
        if self.job.edit is None:
            return self._sums(group, todo)
        if not todo:
            return iter(())
        return self._stage(group, names, todo, self.job.edit(group)(sum(map(self.job.elements, names))))

    def _reads(self) -> Iterator[Read]:
        """Yield what is going to be read, in about the order of the tasks."""
        for group, names in self.job.groups.items():
            if self.job.space is not None and group not in self.grams:
                yield from self._reads_of("products", [name for name in names if name not in self.job.known])
            if self.sink is not None:
                yield from self._reads_of("sums", [name for name in names if name not in self.digests])
        yield from self._reads_of("sums", [name for name in self.job.exact if name not in self.digests])

    def _reads_of(self, what: str, names: Sequence[str]) -> Iterator[Read]:
        for name in names:
            for block in self.job.starts(name):
                yield what, name, block * BLOCK, self.job.count(name, block)

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
        def then(parts: list[Gram]) -> Iterator[Task]:
            # summed in the order of the blocks, whichever thread finished last
            self.grams[group] = np.sum(parts, axis=0)
            if self.sink is None:
                return iter(())
            self.sink.solved(group, self.grams[group])
            self._solve(group)
            return self._outputs(group, names, todo)

        return self._pass(self.job.places(names, self.job.known), self._gram, then)

    def _stage(self, group: str, names: Sequence[str], todo: Sequence[str], stage: Stage) -> Iterator[Task]:
        """Go through the stages of an edit; its places are numbered over all tensors of the group, written ones too."""
        places = self.job.places(names)
        if isinstance(stage, Reading) and places:
            return self._pass(
                places,
                lambda work, place: self._measure(work, stage, place),
                lambda parts: self._stage(group, names, todo, stage.then(parts)),
            )
        numbered = {(place.tensor, place.start): place for place in places}

        def write(work: _Workspace, name: str, block: int) -> None:
            assert isinstance(stage, Writing)
            self._edit(work, group, stage, numbered[name, block * BLOCK])

        return itertools.chain.from_iterable(self._tasks(name, write) for name in todo)

    def _pass(
        self,
        places: Sequence[Place],
        measure: Callable[[_Workspace, Place], T],
        then: Callable[[list[T]], Iterator[Task]],
    ) -> Iterator[Task]:
        """Yield a measurement of every place; what follows from all of them, in their order, goes to the head of the queue."""
        parts: dict[int, T] = {}

        def task(work: _Workspace, place: Place) -> None:
            part = measure(work, place)
            with self._state:
                parts[place.number] = part
                if len(parts) < len(places):
                    return
            following = then([parts[number] for number in range(len(places))])
            with self._state:
                self._ready.appendleft(following)
                self._state.notify_all()

        for place in places:
            yield lambda work, place=place: task(work, place)

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
            first, self._error = self._error is None, self._error or error
            self._state.notify_all()
        for row in self.job.rows if first else ():
            row.stop()

    # ---- tasks ------------------------------------------------------------------------------------------------------

    def _load(self, work: _Workspace, name: str, block: int, hashes: _Tensor | None, sums: Sums = ()) -> Block:
        """Read the task of every row that starts at a block into [rows, n], in the one storage type that holds them all.

        Of the rows that are `sums` only the base is read.
        """
        start, count = self._announce(name, block, "products" if hashes is None else "sums")
        return self._read(work, "inputs", name, start, count, hashes, sums, again=self.sink is not None)

    def _announce(self, name: str, block: int, purpose: str) -> tuple[int, int]:
        """Announce what is read after a task; return the task's first element, and how many it has."""
        start, count = block * BLOCK, self.job.count(name, block)
        if self._lookahead is not None:
            self._lookahead.reached((purpose, name, start, count))
        elif block % AHEAD == 0 and start + AHEAD * BLOCK < self.job.elements(name):
            for row in self.job.rows:
                row.ahead(name, start + AHEAD * BLOCK, AHEAD * BLOCK)
        return start, count

    def _read(
        self,
        work: _Workspace,
        into: str,
        name: str,
        start: int,
        count: int,
        hashes: _Tensor | None = None,
        sums: Sums = (),
        again: bool = False,
    ) -> Block:
        """Read some elements of every row; `again` says that another pass will read the same ones."""
        rows, block = self.job.rows, start // BLOCK
        stored = [sums[0].base.dtype.storage if sums else row.dtype(name).storage for row in rows]
        common = stored[0] if len(set(stored)) == 1 else "float64" if "float64" in stored else "float32"
        inputs = work.block(into, len(rows), count, common)
        for place, row in enumerate(rows):
            raw = inputs[place] if stored[place] == common else work.block("raw", 1, count, stored[place])[0]
            view = raw.data.cast("B")
            twin = _twin(sums, place)
            if twin is not None:  # nearer in memory than in the file
                raw[:] = inputs[twin]
            elif sums:
                sums[place].read(start, view)
            else:
                row.read(name, start, view)
            if hashes is not None:
                digests = [] if twin is None else hashes.inputs[twin][block : block + -(-count // BLOCK)]
                digests = digests or block_digests(view, raw.itemsize)
                hashes.inputs[place][block : block + len(digests)] = digests
            if twin is None and (hashes is not None or again):
                self._compare(row, (name, place, start, count), view, again and hashes is None)
            if stored[place] != common:
                work.kernels.convert(raw, inputs[place])
        return inputs

    def _compare(self, row: Source, elements: tuple[str, int, int, int], view: memoryview, again: bool) -> None:
        """Compare a reading with the one before it: a file may change without another time, through a mapping of its pages."""
        if not again and elements not in self._before:
            return
        digest = xxhash.xxh3_128_digest(view[:SAMPLE])
        if self._before.pop(elements, digest) != digest:
            raise ChangedError(
                f"{row.name}: tensor {elements[0]!r} was overwritten while it was read, so the result would be of two "
                "versions; nothing was written. Wait until nothing writes there, and give the same command again"
            )
        if again:
            self._before[elements] = digest

    def _gram(self, work: _Workspace, place: Place) -> Gram:
        assert self.job.space is not None
        name = place.tensor
        if name in self.job.known:
            return self.job.known[name]()
        sums = self._rows_apart(name)
        inputs = self._load(work, name, place.start // BLOCK, None, sums)
        gram = self._adding(work, sums, place.start, place.stop).gram(inputs, self.job.space)
        if not np.isfinite(gram).all():
            self._blame_input(work, name, inputs, sums)
            raise DegenerateError(f"tensor {name!r} holds NaN or infinity, so its task vectors have no angle; use lerp")
        self._advance_read(place)
        return gram

    def _advance_read(self, place: Place) -> None:
        self.advance(sum((place.stop - place.start) * row.dtype(place.tensor).itemsize for row in self.job.rows))

    def _measure(self, work: _Workspace, stage: Reading, place: Place) -> Any:
        whole = (place.start, place.stop)
        read = lambda start, stop: self._read(  # noqa: E731
            work, "inputs", place.tensor, start, stop - start, again=(start, stop) == whole
        )
        found = stage.measure(place, read)
        self._advance_read(place)
        return found

    def _combine(self, work: _Workspace, group: str, name: str, block: int) -> None:
        sums = self._rows_apart(name)
        if not sums and self.kernels.device == "cpu" and len({row.dtype(name).storage for row in self.job.rows}) == 1:
            self._combine_tiles(work, group, name, block)
            return
        inputs = self._load(work, name, block, self._tensors[name], sums)
        combine = self._adding(work, sums, block * BLOCK, block * BLOCK + inputs.shape[1]).combine
        self._write_outputs(
            work, name, block, inputs, self.coefficients[group], lambda row, out: combine(row, inputs, out), sums
        )

    def _combine_tiles(self, work: _Workspace, group: str, name: str, block: int) -> None:
        """Combine a task tile by tile: read, hashed, summed and written while the tile is in the processor's cache."""
        progress, dtype, rows = self._tensors[name], self.job.dtypes[name], self.job.rows
        coefficients, storage = self.coefficients[group], rows[0].dtype(name).storage
        alone = coefficients.tolist() == [[1.0]] and dtype.storage == storage  # its bytes are those of the result
        start, count = self._announce(name, block, "sums")
        inputs_seen = [_BlockDigests() for _ in rows]
        outputs_seen = inputs_seen if alone else [_BlockDigests() for _ in coefficients]
        for first in range(0, count, TILED):
            size = min(TILED, count - first)
            inputs = work.block("tile", len(rows), size, storage)
            for place, (row, view, seen) in enumerate(zip(rows, _bytes_of_rows(inputs), inputs_seen)):
                row.read(name, start + first, view)
                seen.add(view, inputs.itemsize)
                if not first:
                    self._compare(row, (name, place, start, count), view, again=False)
            outputs = inputs if alone else work.block("outputs", len(coefficients), size, dtype.storage)
            finite = work.kernels.finite(inputs) if alone else work.kernels.combine_all(coefficients, inputs, outputs)
            self._check_finite(work, name, finite, inputs)
            for number, (view, seen) in enumerate(zip(_bytes_of_rows(outputs), outputs_seen)):
                if not alone:
                    seen.add(view, outputs.itemsize)
                self._write(number, name, start + first, view)
        for seen, digests in ((inputs_seen, progress.inputs), (outputs_seen, progress.outputs)):
            for each, known in zip(seen, digests):
                found = each.finished()
                known[block : block + len(found)] = found
        self._advance(name, count, progress)

    def _check_finite(self, work: _Workspace, name: str, finite: bool, inputs: Block, sums: Sums = ()) -> None:
        if not finite and not self.job.allow_nonfinite:
            self._blame_input(work, name, inputs, sums)
            dtype = self.job.dtypes[name]
            raise NonFiniteError(
                f"tensor {name!r}: the merge exceeds {dtype.largest:g}, the largest {dtype.torch_name}; choose a wider --dtype"
            )

    def _edit(self, work: _Workspace, group: str, stage: Writing, place: Place) -> None:
        name, block = place.tensor, place.start // BLOCK
        inputs = self._load(work, name, block, self._tensors[name])
        if not self.job.allow_nonfinite and not work.kernels.finite(inputs):  # a mask may hide it
            self._blame_input(work, name, inputs)
        narrow = inputs.itemsize == 2 and self.job.dtypes[name].itemsize == 2
        vector = work.block("vector", 1, inputs.shape[1], "float32" if narrow else "float64")[0]
        read = lambda start, stop: self._read(work, "beyond", name, start, stop - start)  # noqa: E731
        stage.task_vector(place, inputs, read, vector)
        self._write_outputs(
            work,
            name,
            block,
            inputs,
            self.coefficients[group],
            lambda row, out: work.kernels.add(inputs[0], float(row[0]), vector, out),
        )

    def _write_outputs(
        self,
        work: _Workspace,
        name: str,
        block: int,
        inputs: Block,
        rows: Coefficients,
        compute: Callable[[Coefficients, Block], bool],
        sums: Sums = (),
    ) -> None:
        """Compute, hash and write every output of a task; `compute` says whether all of one is finite."""
        progress, dtype, count = self._tensors[name], self.job.dtypes[name], inputs.shape[1]
        output = work.block("output", 1, count, dtype.storage)[0]
        view = output.data.cast("B")
        for number, row in enumerate(rows):
            self._check_finite(work, name, compute(row, output), inputs, sums)
            digests = block_digests(view, output.itemsize)
            progress.outputs[number][block : block + len(digests)] = digests
            self._write(number, name, block * BLOCK, view)
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
            self._write(number, name, block * BLOCK, view)
        self._advance(name, inputs.shape[1], progress)

    def _write(self, output: int, name: str, start: int, view: memoryview) -> None:
        assert self.sink is not None
        for each in (name, *self._copies.get(name, ())):
            self.sink.write(output, each, start, view)

    def _advance(self, name: str, count: int, progress: _Tensor) -> None:
        copies = 1 + len(self._copies.get(name, ()))
        written = count * self.job.dtypes[name].itemsize * self.job.outputs * copies
        self.advance(written + sum(count * row.dtype(name).itemsize for row in self.job.rows))
        with self._state:
            progress.missing -= 1
            last = not progress.missing
        if last:
            self._finish(name, progress)

    def _finish(self, name: str, progress: _Tensor) -> None:
        digests, nbytes = progress.digests(), self.job.elements(name) * self.job.dtypes[name].itemsize
        del self._tensors[name]
        assert self.sink is not None
        for each in (*self._copies.get(name, ()), name):  # copies first: who finds the original done has them too
            self.digests[each] = digests
            self.sink.finished(each, digests, nbytes)

    def _rows_apart(self, name: str) -> Sums:
        """Return every row as a base and its products if one has some and all bases have one 16-bit type, else nothing."""
        if name not in self._apart:
            found = [row.apart(name) for row in self.job.rows] if self.kernels.device == "cpu" else []
            rows = [each for each in found if each is not None]
            alike = len(rows) == len(self.job.rows) and len({each.base.dtype.storage for each in rows}) == 1
            self._apart[name] = rows if alike and len({each.matrices for each in rows if each.product}) == 1 else ()
        return self._apart[name]

    def _adding(self, work: _Workspace, sums: Sums, start: int, stop: int) -> Kernels | AddingKernels:
        """Return kernels that add the products of a task's rows on the way, of the matrices that it reaches into."""
        if not sums:
            return work.kernels
        from warmkit.merging.low_rank import TILE, AddingKernels

        size = sums[0].base.elements // max(each.matrices for each in sums)
        numbers = range(start // size, (stop - 1) // size + 1)
        products = [[*map(each.product, numbers)] if each.product else None for each in sums]
        return AddingKernels(products, start - numbers.start * size, work.block("sums", len(sums), TILE, "float32"))

    def _blame_input(self, work: _Workspace, name: str, inputs: Block, sums: Sums = ()) -> None:
        for row, values, each in itertools.zip_longest(self.job.rows, inputs, sums):
            whole = work.kernels.finite(values.reshape(1, -1)) and (each is None or each.finite)
            if not self.job.allow_nonfinite and not whole:
                what = f"tensor {name!r} of {row.name} holds NaN or infinity"
                raise NonFiniteError(f"{what}; use an earlier checkpoint, or let it pass in a merge: --allow-nonfinite")
