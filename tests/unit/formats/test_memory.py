"""State dicts in memory are read as checkpoints are."""

import pytest
import torch

from warmkit.errors import UnsupportedError
from warmkit.formats.memory import in_memory


def test_numbers_are_those_of_the_tensors() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    held = in_memory("model 1", {"w": whole.T, "half": whole.bfloat16(), "count": torch.tensor(3), "none": torch.empty(0, 2)})
    assert (held.source, held.config, held.files, held.directory) == ("model 1", {}, (), None)
    for name, expected in (("w", whole.T), ("half", whole.bfloat16()), ("count", torch.tensor(3)), ("none", torch.empty(0, 2))):
        assert torch.equal(held[name].load(), expected)
        assert held[name].load().dtype == expected.dtype


def test_a_type_that_cannot_be_averaged_is_named() -> None:
    with pytest.raises(UnsupportedError, match="model 2: tensor 'w' is complex64, which cannot be averaged"):
        in_memory("model 2", {"w": torch.zeros(2, dtype=torch.complex64)})
