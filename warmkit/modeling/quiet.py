"""States that a block of code sets and gives back: no dropout, and transformers without its reports, bars and tracebacks."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from torch import nn

from warmkit.errors import CheckpointError


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Generator[None, None, None]:
    """Switch dropout off, and back to what it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """Silence transformers: new heads are expected, and progress is shown once, by us."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def loading(source: str) -> Generator[None, None, None]:
    """Turn what transformers says of a checkpoint that it cannot load into a CheckpointError."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: transformers cannot load it: {' '.join(str(error).split())[:300]}") from None
