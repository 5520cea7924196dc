"""REINFORCE with a KL to an anchor, as pure functions of what the models say (`modeling.log_probabilities`)."""

from __future__ import annotations

import torch

from warmkit.errors import UsageError
from warmkit.training.policy_recipe import RELATIVE


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
    `group`:          (r_k - mean of the prompt's samples) / (their standard deviation + 1e-4), GRPO's
    `none`:           r_k

    Args:
        rewards: [B, K], K samples a prompt.
        baseline: One of these.
        values: v(x), [B], for `value`.

    Returns:
        [B, K].

    Raises:
        UsageError: If K = 1 leaves no other sample.

    Source: Williams (1992); leave-one-out: Kool et al. (2019), Ahmadian et al. (2024); group: Shao et al. (2024, GRPO); value:
    WARM, appendix C.4.

    Examples:
        >>> advantages(torch.tensor([[1.0, 2.0, 6.0]]), "leave-one-out").tolist()
        [[-3.0, -1.5, 4.5]]
    """
    count = rewards.shape[1]
    if baseline in RELATIVE and count == 1:
        raise UsageError(f"{baseline} needs two samples a prompt or more, found 1; use batch")
    if baseline == "group":
        return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    if baseline == "leave-one-out":
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


def clipped_loss(advantage: torch.Tensor, policy: torch.Tensor, sampled: torch.Tensor, clip: float) -> torch.Tensor:
    """Return PPO's loss of whole completions, -mean(min(A rho, A clamp(rho, 1 - c, 1 + c))) with rho = pi(y|x) / pi_old(y|x).

    At rho = 1 its gradient is that of `reinforce_loss`.

    Args:
        advantage: [N].
        policy: log pi(y|x) with its gradient, [N].
        sampled: log pi_old(y|x), of the policy that sampled, [N].
        clip: c, above 0.

    Source: Schulman et al. (2017), equation 7, of completions instead of tokens, as TRL's RLOO has it.
    """
    ratio, gain = (policy - sampled.detach()).exp(), advantage.detach()
    return -torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain).mean()
