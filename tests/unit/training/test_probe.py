"""The probe is the one minimum of its objective."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from warmkit.training.probe import train_probe


def features(seed: int = 0, count: int = 40, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-3, 3, width)  # features of very different sizes
    chosen = torch.randn(count, width, generator=generator) + 0.5
    return chosen * scales, torch.randn(count, width, generator=generator) * scales


@pytest.mark.parametrize("l2", [1e-3, 0.1, 10])
def test_the_gradient_is_zero_at_the_probe(l2: float) -> None:
    chosen, rejected = features()
    spread = torch.cat([chosen, rejected]).double().std(0)
    weight = (train_probe(chosen, rejected, l2).double()[0] * spread).requires_grad_()
    margins = ((chosen.double() - rejected.double()) / spread) @ weight
    (-functional.logsigmoid(margins).mean() + l2 / 2 * weight.square().sum()).backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().max()) < 5e-5, "against about 0.3 at a head of zeros"


def test_the_probe_is_the_same_every_time_whatever_the_seed() -> None:
    chosen, rejected = features()
    torch.manual_seed(1)
    first = train_probe(chosen, rejected, 0.1)
    torch.manual_seed(2)
    assert torch.equal(first, train_probe(chosen, rejected, 0.1))


def test_the_unit_of_a_feature_does_not_matter() -> None:
    chosen, rejected = features()
    small, large = train_probe(chosen, rejected, 0.1), train_probe(1000 * chosen, 1000 * rejected, 0.1)
    assert torch.allclose(small, 1000 * large, rtol=1e-4)


def test_a_larger_penalty_gives_a_smaller_head() -> None:
    sizes = [float(train_probe(*features(), l2).norm()) for l2 in (0.01, 0.1, 1, 10)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_constant_feature_gets_no_weight() -> None:
    chosen, rejected = features()
    chosen[:, 2] = rejected[:, 2] = 7.0
    head = train_probe(chosen, rejected, 0.1)
    assert head[0, 2] == 0
    assert head.isfinite().all()


def test_the_probe_works_below_no_grad() -> None:
    with torch.no_grad():
        assert train_probe(*features(), 0.1).any()
