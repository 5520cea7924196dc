"""Losses, as pure functions of what the models say."""

from __future__ import annotations

import torch
from torch.nn import functional


def bradley_terry(
    chosen: torch.Tensor, rejected: torch.Tensor, margin: torch.Tensor | None = None, center: float = 0.0
) -> torch.Tensor:
    """Return the mean negative log-likelihood that y+ beats y-, by a margin m, and what centers the rewards:

        -log sigmoid(r(x, y+) - r(x, y-) - m) + center (r(x, y+) + r(x, y-))^2

    Args:
        chosen: Rewards of the preferred answers, [B].
        rejected: Rewards of the others, [B].
        margin: By how much each preferred answer should be rated higher, [B]; None for 0.
        center: Weight of the squared sum, which the preferences alone leave open.

    Returns:
        A scalar, in nats.

    Source: Bradley & Terry (1952); WARM (Ramé et al., 2024), section 2.1; margins: Touvron et al. (2023),
    "Llama 2", equation (2); centering: Eisenstein et al. (2023), "Helping or herding?".

    Examples:
        >>> round(float(bradley_terry(torch.tensor([1.0]), torch.tensor([1.0]))), 4)
        0.6931
    """
    ahead = chosen - rejected if margin is None else chosen - rejected - margin
    loss = -functional.logsigmoid(ahead).mean()
    return loss + center * (chosen + rejected).square().mean() if center else loss


def completion_nll(logits: torch.Tensor, ids: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
    """Return the mean negative log-likelihood of the learned tokens, each given the tokens before it.

    Args:
        logits: [B, T, V].
        ids: [B, T].
        learned: [B, T], true for tokens that count; the first of a row never does.

    Returns:
        A scalar, in nats per token.

    Examples:
        >>> uniform = torch.zeros(1, 3, 8)
        >>> round(float(completion_nll(uniform, torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, 1]]).bool())), 4)
        2.0794
    """
    counted = learned[:, 1:]
    return functional.cross_entropy(logits[:, :-1][counted].float(), ids[:, 1:][counted])
