"""REINFORCE with a KL to an anchor, as pure functions of what the models say.

All log-probabilities are of the distribution that was sampled from: logits over the temperature, banned tokens at minus
infinity, for policy and anchor alike. Masking the sampler alone would turn the KL's penalty into a bonus.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from warmkit.errors import UsageError


def log_distribution(logits: torch.Tensor, temperature: float, banned: Sequence[int] = ()) -> torch.Tensor:
    """Return the log-probabilities of the next token: log softmax(logits / T), banned tokens at minus infinity.

    Args:
        logits: [..., V].
        temperature: Above 0.
        banned: Token ids.

    Returns:
        [..., V], float32 or better.

    Example:
        >>> log_distribution(torch.zeros(3), 0.9, banned=[1]).exp().tolist()
        [0.5, 0.0, 0.5]
    """
    scaled = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    if banned:
        scaled = scaled.index_fill(-1, torch.tensor(banned, device=logits.device), -torch.inf)
    return scaled.log_softmax(-1)


def completion_log_probability(spoken: torch.Tensor, tokens: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return log pi(y|x) = sum_t log pi(y_t | x, y_<t).

    Args:
        spoken: Log-probabilities of every next token, [N, T, V].
        tokens: What was sampled, [N, T].
        counted: [N, T], true for tokens of the completion.

    Returns:
        [N], in nats.
    """
    chosen = spoken.gather(-1, tokens[..., None]).squeeze(-1)
    return chosen.masked_fill(~counted, 0.0).sum(-1)


def entropy(spoken: torch.Tensor) -> torch.Tensor:
    """Return the entropy of the next token, -sum_v pi(v) log pi(v), [...], in nats.

    Example:
        >>> round(float(entropy(log_distribution(torch.zeros(4), 1.0))), 4)
        1.3863
    """
    return -(spoken.exp() * spoken.masked_fill(spoken == -torch.inf, 0.0)).sum(-1)


def exact_kl(spoken: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the KL of the next token over the whole vocabulary, sum_v pi(v) (log pi(v) - log pi'(v)).

    Summed over the prefixes of a sampled completion it is an unbiased estimate of the KL of completions, of lower variance than
    the sampled one, log pi(y|x) - log pi'(y|x).

    Args:
        spoken: Log-probabilities of the policy, [..., V]; banned tokens are minus infinity in both.
        other: Of the anchor, [..., V].

    Returns:
        [...], in nats, at least 0 up to rounding.
    """
    ratio = (spoken - other).masked_fill(spoken == -torch.inf, 0.0)
    return (spoken.exp() * ratio).sum(-1)


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

    Example:
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
