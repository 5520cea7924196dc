"""Reading ahead: whatever is announced and read, in whatever order, the bytes are right and no buffer is lost."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmkit.engine.inputs import FileSource
from warmkit.engine.lookahead import Lookahead, Read
from warmkit.errors import TransferError
from warmkit.formats.memory import in_memory
from warmkit.sources import prefetch, remote_file
from warmkit.sources.prefetch import Prefetcher
from warmkit.sources.remote_file import PassingError, Patience, RemoteFile

CONTENT = np.random.default_rng(0).bytes(5000)
PIECE = 256


class Memory(RemoteFile):
    """A file that is far away in memory, and fails now and then."""

    def __init__(self, failures: int = 0, broken: bool = False) -> None:
        super().__init__("memory", "memory", Patience())
        self.size, self.version, self.beginning = len(CONTENT), "1", CONTENT[:10]
        self.failures, self.broken, self.requests = failures, broken, 0

    def receive(self, offset: int, view: memoryview) -> None:
        self.requests += 1
        if self.broken:
            raise TransferError("memory: broken")
        if self.failures:
            self.failures -= 1
            half = view.nbytes // 2
            view[:half] = CONTENT[offset : offset + half]
            raise PassingError("broke", half)
        view[:] = CONTENT[offset : offset + view.nbytes]

    def check(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefetch, "PIECE", PIECE)
        patch.setattr(remote_file, "BACKOFF", 0.0)
        yield


ranges = st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(1, 900)).map(lambda r: (r[0], min(r[1], len(CONTENT) - r[0])))


@given(
    announced=st.lists(ranges, max_size=25),
    unannounced=st.lists(ranges, max_size=6),
    order=st.randoms(use_true_random=False),
    buffers=st.integers(1, 6),
    failures=st.integers(0, 4),
)
@settings(max_examples=60)
def test_every_read_gets_its_bytes_and_every_buffer_comes_back(
    announced: list[tuple[int, int]], unannounced: list[tuple[int, int]], order: random.Random, buffers: int, failures: int
) -> None:
    file, prefetcher = Memory(failures), Prefetcher(buffers * PIECE, 3)
    for offset, size in announced:
        prefetcher.ahead(file, offset, size)
    reads = announced + unannounced
    order.shuffle(reads)

    def read(place: tuple[int, int]) -> bool:
        buffer = bytearray(place[1])
        prefetcher.read(file, place[0], memoryview(buffer))
        return buffer == CONTENT[place[0] : sum(place)]

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(read, reads))
    if not unannounced:
        with prefetcher._state:  # a piece whose readers did not wait for it may still be on its way
            assert prefetcher._state.wait_for(lambda: not prefetcher._pieces, 60)
            assert len(prefetcher._free) + prefetcher._unused == buffers
    prefetcher.close()
    for thread in prefetcher._threads:
        thread.join(60)
        assert not thread.is_alive()


def test_what_was_announced_is_fetched_once() -> None:
    file, prefetcher = Memory(), Prefetcher(4 * PIECE, 2)
    for offset in range(0, len(CONTENT), 100):
        prefetcher.ahead(file, offset, min(100, len(CONTENT) - offset))
    for offset in range(0, len(CONTENT), 100):
        buffer = bytearray(min(100, len(CONTENT) - offset))
        prefetcher.read(file, offset, memoryview(buffer))
    assert file.requests <= -(-len(CONTENT) // PIECE) + 4  # a reader that comes before its piece asks itself
    prefetcher.close()


def test_an_error_reaches_whoever_reads() -> None:
    file, prefetcher = Memory(broken=True), Prefetcher(4 * PIECE, 2)
    prefetcher.ahead(file, 0, 100)
    with pytest.raises(TransferError, match="broken"):
        prefetcher.read(file, 0, memoryview(bytearray(100)))
    prefetcher.close()


def test_closing_wakes_those_that_wait() -> None:
    entered, leave = threading.Event(), threading.Event()

    class Silent(Memory):
        def receive(self, offset: int, view: memoryview) -> None:
            entered.set()
            leave.wait(10)
            raise PassingError("nothing came")

        def close(self) -> None:
            leave.set()

    prefetcher = Prefetcher(4 * PIECE, 1)
    file = Silent()
    prefetcher.ahead(file, 0, 100)
    entered.wait(10)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(prefetcher.read, file, 0, memoryview(bytearray(100)))
        prefetcher.close()
        with pytest.raises(TransferError, match="was stopped"):
            reading.result(10)


@given(order=st.randoms(use_true_random=False), window=st.integers(1, 400))
@settings(max_examples=40)
def test_every_read_is_announced_at_most_once_and_the_window_is_kept(order: random.Random, window: int) -> None:
    import torch

    announced: list[tuple[str, int, int]] = []

    class Row(FileSource):
        def ahead(self, tensor: str, start: int, elements: int) -> None:
            announced.append((tensor, start, elements))

    row = Row("row", in_memory("row", {"w": torch.zeros(100)}).entries)
    places: list[Read] = [(what, "w", start, 10) for what in ("products", "sums") for start in range(0, 100, 10)]
    lookahead = Lookahead([row], iter(places), window)
    lookahead.start()
    swapped = places.copy()
    for place in range(len(swapped) - 1):  # threads overtake each other a little
        if order.random() < 0.5:
            swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    for place in swapped:
        lookahead.reached(place)
        assert lookahead._ahead < window + 40
    assert len(announced) <= len(places)
    assert not lookahead._announced
    assert not lookahead._early
