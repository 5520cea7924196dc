"""REINFORCE with a KL to an anchor, as pure functions of what the models say (`modeling.log_probabilities`)."""

from __future__ import annotations

import torch

from warmkit.errors import UsageError


def regularized(rewards: torch.Tensor, beta: float, policy: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
    """Return r_beta(x, y) = r(x, y) - beta log(pi(y|x) / pi_anchor(y|x)), a constant to the gradient.

    Args:
        rewards: [N].
        beta: At least 0.
        policy: log pi(y|x), [N].
        anchor: log pi_anchor(y|x), [N].

    Source: WARP (Ramé et al., 2024), equation 1 and algorithm 1, line 7.
    """
    return rewards - beta * (policy - anchor).detach()


def advantages(rewards: torch.Tensor, baseline: str, values: torch.Tensor | None = None) -> torch.Tensor:
    """Take a baseline off the rewards; one that does not depend on the sample itself leaves the gradient's mean as it is.

    `leave-one-out`:  r_k - mean of the other samples of the prompt
    `batch`:          r_k - mean of the batch, this sample included: the gradient's mean shrinks by (1 - 1/N)
    `value`:          r_k - v(x)
    `none`:           r_k

    Args:
        rewards: [B, K], K samples a prompt.
        baseline: One of these.
        values: v(x), [B], for `value`.

    Returns:
        [B, K].

    Raises:
        UsageError: If K = 1 leaves no other sample.

    Source: Williams (1992); leave-one-out: Kool et al. (2019), Ahmadian et al. (2024); value: WARM, appendix C.4.

    Examples:
        >>> advantages(torch.tensor([[1.0, 2.0, 6.0]]), "leave-one-out").tolist()
        [[-3.0, -1.5, 4.5]]
    """
    count = rewards.shape[1]
    if baseline == "leave-one-out":
        if count == 1:
            raise UsageError("leave-one-out needs two samples a prompt or more, found 1; use batch")
        return (rewards - rewards.mean(1, keepdim=True)) * (count / (count - 1))
    if baseline == "batch":
        return rewards - rewards.mean()
    if baseline == "value":
        assert values is not None
        return rewards - values[:, None]
    return rewards


def reinforce_loss(advantage: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
    """Return -mean(A log pi(y|x)), whose gradient is minus the policy gradient; A is a constant.

    Args:
        advantage: [N].
        policy: log pi(y|x) with its gradient, [N].

    Returns:
        A scalar; its value says nothing, its gradient does.

    Source: Williams (1992).
    """
    return -(advantage.detach() * policy).mean()
