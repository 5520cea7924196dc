"""Log-probabilities of sampled completions, their entropy and their KL.

All are of the distribution that was sampled from: logits over the temperature, banned tokens at minus infinity, for policy and
anchor alike. Masking the sampler alone would turn the KL's penalty into a bonus.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def log_distribution(logits: torch.Tensor, temperature: float, banned: Sequence[int] | torch.Tensor = ()) -> torch.Tensor:
    """Return the log-probabilities of the next token: log softmax(logits / T), banned tokens at minus infinity.

    Args:
        logits: [..., V].
        temperature: Above 0.
        banned: Token ids.

    Returns:
        [..., V], float32 or better.

    Examples:
        >>> log_distribution(torch.zeros(3), 0.9, banned=[1]).exp().tolist()
        [0.5, 0.0, 0.5]
    """
    scaled = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    if len(banned):
        places = banned if isinstance(banned, torch.Tensor) else torch.tensor(banned, device=logits.device)
        scaled = scaled.index_fill(-1, places, -torch.inf)
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

    Examples:
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
