"""Many questions to one judge, several at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from warmkit.common.progress import Advance
from warmkit.errors import EndpointError

Q = TypeVar("Q")
T = TypeVar("T")


def ask_all(
    questions: Sequence[Q],
    ask: Callable[[Sequence[Q]], Sequence[T]],
    concurrency: int = 8,
    batch_size: int = 1,
    advance: Advance | None = None,
) -> list[T | EndpointError]:
    """Return an answer to every question, in order; where there is none, the error that says why.

    Args:
        questions: What to ask.
        ask: From some questions to as many answers; called from several threads at once.
        concurrency: Calls in flight at a time.
        batch_size: Questions of a call.
        advance: Called after each call.

    Raises:
        WarmkitError: What `ask` raises besides EndpointError.
    """
    batches = [questions[start : start + batch_size] for start in range(0, len(questions), batch_size)]
    answers: list[Sequence[T | EndpointError]] = [[] for _ in batches]

    def receive(place: int, found: Sequence[T | EndpointError]) -> None:
        answers[place] = found
        if advance is not None:
            advance(len(found), len(questions))

    _in_threads([lambda batch=batch: _answers(ask, batch) for batch in batches], concurrency, receive)
    return [answer for batch in answers for answer in batch]


def _answers(ask: Callable[[Sequence[Q]], Sequence[T]], batch: Sequence[Q]) -> Sequence[T | EndpointError]:
    try:
        return ask(batch)
    except EndpointError as error:
        return [error] * len(batch)


def _in_threads(jobs: Sequence[Callable[[], T]], concurrency: int, receive: Callable[[int, T], None]) -> None:
    """Run jobs, and hand results to `receive` in this thread as they come; the first error ends all.

    Not a pool of `concurrent.futures`: on Ctrl-C its threads would hold the process until the last answer is in.
    """
    waiting: queue.SimpleQueue[tuple[int, Callable[[], T]]] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[int, T | BaseException]] = queue.SimpleQueue()
    stop = threading.Event()
    for place, job in enumerate(jobs):
        waiting.put((place, job))
    threads = [
        threading.Thread(target=_work, args=(waiting, finished, stop), daemon=True) for _ in range(min(concurrency, len(jobs)))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in jobs:
            place, found = finished.get()
            if isinstance(found, BaseException):
                raise found
            receive(place, found)
    finally:
        stop.set()


def _work(
    waiting: queue.SimpleQueue[tuple[int, Callable[[], T]]],
    finished: queue.SimpleQueue[tuple[int, T | BaseException]],
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        try:
            place, job = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            finished.put((place, job()))
        except BaseException as error:  # raised again where the results are received
            finished.put((place, error))
