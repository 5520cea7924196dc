"""Linear probing: the head that all reward models of one WARM share, trained on frozen features."""

from __future__ import annotations

import torch
from torch.nn import functional


def train_probe(chosen: torch.Tensor, rejected: torch.Tensor, l2: float) -> torch.Tensor:
    """Return the head that minimises the Bradley-Terry loss on frozen features.

    min_w  mean -log sigmoid(w . (f(x, y+) - f(x, y-)))  +  l2/2 |w|^2, on features of unit variance: strongly convex, so L-BFGS
    finds the one minimum and nothing depends on a seed, a rate or a number of steps.

    Args:
        chosen: Features of the preferred answers, [n, hidden].
        rejected: Features of the others, [n, hidden].
        l2: Weight of the penalty, above 0.

    Returns:
        The head's weight, [1, hidden], float32.

    Source: Kumar et al. (2022); WARM (Ramé et al., 2024), remark 1 and appendix C.3.1.

    Examples:
        >>> head = train_probe(torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]]), l2=0.1)
        >>> head.shape, bool(head[0, 0] > 0)
        (torch.Size([1, 2]), True)
    """
    spread = torch.cat([chosen, rejected]).double().std(0).clamp_min(1e-6)
    differences = (chosen.double() - rejected.double()) / spread
    weight = torch.zeros(differences.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = -functional.logsigmoid(differences @ weight).mean() + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)  # pyright: ignore[reportArgumentType]
    return (weight.detach() / spread).float()[None]
