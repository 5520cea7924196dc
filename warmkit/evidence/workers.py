"""Processes that work for this one, with a thread each, and end when it ends, however that is."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

from warmkit.pipelines.processes import ORPHANED

ENDED = "a process ended without a result; was it killed, or is memory short? The same command goes on"


@contextlib.contextmanager
def workers(count: int, context: BaseContext | None = None, *prepare: Any) -> Generator[ProcessPoolExecutor]:
    """Keep processes as long as the block runs; where it fails, they end at once.

    Args:
        count: Processes.
        context: That starts them; by default one that starts each anew.
        prepare: A function, and its arguments, that every process calls first.
    """
    context = context or get_context("spawn")
    listening, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, context, _start, (listening, *prepare))
    try:
        yield pool
        pool.shutdown()
    finally:
        held.close()  # ends processes that still work
        pool.shutdown(cancel_futures=True)


def forking(imports: Sequence[str]) -> BaseContext:
    """Return a context whose processes find modules imported; where forking is not safe, each imports them itself."""
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(list(imports))
    return context


def _start(parent: Connection, *prepare: Any) -> None:
    """Prepare a process: one thread, no word about interrupts, and its end when its parent lets go, however that ends."""
    import torch

    def follow() -> None:
        with contextlib.suppress(EOFError, OSError):
            parent.recv_bytes()
        os._exit(ORPHANED)

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    if prepare:
        prepare[0](*prepare[1:])
