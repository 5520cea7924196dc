"""Bands: loaded once by all threads that need them, and few of them in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from warmkit.layouts import bands
from warmkit.layouts.bands import Bands, Content, Load

STARTS = np.zeros(1, np.int64)


def content(number: int, loads: list[Load], size: int = 16) -> Callable[[], Content]:
    """Return what a band of `size` bytes holds: its number."""
    return lambda: Content(size, [*loads, lambda raw: raw.__setitem__(slice(None), number)], STARTS)


def test_threads_that_need_one_load_it_together() -> None:
    """Each of two loads waits for the other to begin, so one thread alone would never end."""
    held, meet, seen = Bands(), threading.Barrier(2, timeout=10), list[int]()
    loads: list[Load] = [lambda raw: raw[:8].fill(1 + meet.wait() * 0), lambda raw: raw[8:].fill(2 + meet.wait() * 0)]

    def need() -> None:
        with held.use((0,), lambda: Content(16, loads, STARTS)) as (raw, _):
            seen.append(int(raw.sum()))

    threads = [threading.Thread(target=need) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert seen == [24, 24, 24]


def test_one_that_was_used_lately_is_not_loaded_again() -> None:
    held, loaded = Bands(), list[int]()
    for _ in range(2):
        with held.use((0,), content(7, [lambda _: loaded.append(0)])) as (raw, _):
            assert (raw == 7).all()
    assert loaded == [0]


def test_what_fails_fails_for_everybody() -> None:
    held, asked = Bands(), threading.Event()
    errors = list[Exception]()

    def fail(_: object) -> None:
        asked.wait(10)
        raise ValueError("no such file")

    def need() -> None:
        try:
            with held.use((0,), content(1, [fail])):
                pass
        except ValueError as error:
            errors.append(error)

    threads = [threading.Thread(target=need) for _ in range(2)]
    for each in threads:
        each.start()
    asked.set()
    for each in threads:
        each.join()
    assert [str(each) for each in errors] == ["no such file"] * 2


@pytest.mark.parametrize("models", [1, 3])
def test_memory_stays_constant_and_is_used_again(models: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "TASK", 100)
    held, addresses = Bands(models), set[int]()
    for number in range(50):
        with held.use((number,), content(number, [], 1000)) as (raw, _):
            assert (raw == number).all()
            addresses.add(raw.ctypes.data)
    assert len(addresses) == 3 * models


def test_what_is_in_use_stays() -> None:
    held = Bands()
    with held.use((0,), content(100, [])) as (raw, _):
        for number in range(1, 20):
            with held.use((number,), content(number, [])):
                pass
        assert (raw == 100).all()


def test_many_models_have_smaller_bands() -> None:
    assert Bands(1).size > Bands(4).size > Bands(8).size == Bands(100).size
