"""Commands in processes that need not import torch, transformers and numba again: forks of a server that has."""

from tests.forks.processes import Popen, run, shims

__all__ = ["Popen", "run", "shims"]
