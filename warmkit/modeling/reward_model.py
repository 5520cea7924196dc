"""A reward model: a transformer with a scalar head, and the one function that scores with it.

The model is transformers' own `AutoModelForSequenceClassification` with one label, so that what is written loads anywhere
with the same scores. A decoder's head is `score`, [1, hidden] without bias, on the last token; an encoder's head is the last
linear layer of its architecture (BERT's `classifier`, behind its pooler), whose bias stays at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from warmkit.common.display import Displayed
from warmkit.common.random_streams import seed_torch
from warmkit.common.units import number
from warmkit.errors import UnsupportedError
from warmkit.formats.checkpoint import LazyTensor
from warmkit.layouts.opening import open_checkpoint
from warmkit.modeling.dropout import set_dropout
from warmkit.modeling.plain_llama import plain_llama
from warmkit.modeling.quiet import evaluating, loading, quiet
from warmkit.modeling.tokens import Batch, Encoder, Text, Tokens, by_length, longest, padding_token, tokenizer_of
from warmkit.modeling.weights import home_of, load_adapters, load_weights, tokenizer_home

HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight", "classifier.dense.weight")
SCORING_TOKENS = 16_384  # padded tokens in one batch without gradients
NO_PADDING = -1  # no id of a token: the last token is read, as transformers does for one text of a model without padding


class RewardModel(Displayed):
    """Reward model r(x, y) with its tokenizer; `load_reward_model` makes one.

    Args:
        model: A transformers sequence classifier with one label.
        encoder: Turns text into tokens.
        path: Where it came from.
    """

    def __init__(self, model: Any, encoder: Encoder, path: str) -> None:
        self.model, self.encoder, self.path = model, encoder, path
        self.head = head_of(model)

    def _facts(self) -> Mapping[str, object]:
        return {
            "path": self.path,
            "architecture": type(self.model).__name__,
            "parameters": number(sum(each.numel() for each in self.model.parameters())),
            "longest text": f"{self.encoder.max_length:,} tokens",
            "device": str(self.device),
        }

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.model.parameters()).device

    def _groups(self, tokens: Sequence[Tokens], most: int, least: int = 4) -> list[list[int]]:
        """Group texts of similar length; of equal length where there is nothing to pad with."""
        lengths = [len(each) for each in tokens]
        if pooled_around(self.model.config) == NO_PADDING:
            return by_length(lengths, most, waste=0, least=1)
        return by_length(lengths, most, least=least)

    def forward(self, tokens: Sequence[Tokens], most: int = SCORING_TOKENS, least: int = 4) -> torch.Tensor:
        """Return the scores of encoded texts, with gradients; texts of similar length share a batch.

        Args:
            tokens: From `encoder.encode`.
            most: Tokens of a batch, padding included.
            least: Texts of a batch, where there are as many.

        Returns:
            float32 [n], on the model's device.
        """
        scores = torch.empty(len(tokens), device=self.device)
        parts: list[torch.Tensor] = []
        order: list[int] = []
        for places in self._groups(tokens, most, least):
            batch = self.encoder.batch([tokens[place] for place in places], self.device)
            parts.append(self._rewards(batch))
            order += places
        return scores.index_copy(0, torch.tensor(order, device=self.device), torch.cat(parts)) if order else scores

    def _rewards(self, batch: Batch) -> torch.Tensor:
        plain = None if torch.is_grad_enabled() else plain_llama(self.model, batch.ids.shape[1])
        if plain is None:
            return self.model(**batch.inputs()).logits.float().squeeze(-1)
        return plain.rewards(batch.ids, self.model.config.pad_token_id)

    @torch.no_grad()
    def score_tokens(self, tokens: Sequence[Tokens]) -> torch.Tensor:
        """Return the scores of encoded texts, without dropout or gradients.

        Args:
            tokens: From `encoder.encode`.

        Returns:
            float32 [n], on the CPU.
        """
        with evaluating(self.model):
            return self.forward(tokens).cpu()

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load other weights into the model, those of a merge in memory for instance.

        Args:
            weights: Tensors by their names in the checkpoint.

        Raises:
            MismatchError: If they are not those of this architecture.
        """
        load_weights(self.model, weights, self.path, optional=["classifier.bias"])

    def score(self, texts: Sequence[tuple[Text, Text]]) -> list[float]:
        """Score answers: return r(x, y) of every (prompt, answer).

        Args:
            texts: Each part is text, or messages for the chat template.

        Returns:
            One number per pair, in order; higher is better.

        Raises:
            DataError: If a text cannot be encoded.
        """
        return self.score_tokens(self.encoder.encode(texts)).tolist()

    @torch.no_grad()
    def features(self, tokens: Sequence[Tokens]) -> torch.Tensor:
        """Return the features that the head reads, without dropout.

        Args:
            tokens: From `encoder.encode`.

        Returns:
            float32 [n, hidden], on the CPU.
        """
        caught: list[torch.Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0]))
        result = torch.empty(len(tokens), self.head.in_features)
        try:
            with evaluating(self.model):
                for places in self._groups(tokens, SCORING_TOKENS):
                    batch = self.encoder.batch([tokens[place] for place in places], self.device)
                    self.model(**batch.inputs())
                    values = caught.pop()
                    if values.dim() == 3:  # a decoder's head reads every token; the model then picks one
                        values = values[torch.arange(len(places)), pooled_places(self.model.config, batch.ids)]
                    result[places] = values.float().cpu()
        finally:
            hook.remove()
        return result


def load_reward_model(
    path: str | Path,
    *,
    max_length: int | None = None,
    pad_token: str | None = None,
    dropout: float | None = None,
    device: str | None = None,
) -> RewardModel:
    """Load a checkpoint as a reward model; a language model or encoder gets a new head of zeros.

    Args:
        path: A directory, or a Hub repository that transformers knows.
        max_length: Tokens a text may have; by default what the model's positions allow, 4096 at most.
        pad_token: What a new head pads with, see `tokens.padding_token`; a trained one keeps its own where this is None.
        dropout: Probability for every dropout of the model; by default the config's.
        device: `cpu` or `cuda`; by default a GPU where there is one.

    Raises:
        CheckpointError: If transformers cannot load it.
        UnsupportedError: If its head was trained with more than one label, or the tokenizer cannot end or pad a text.
        UsageError: If `max_length` is more than the model has positions.
    """
    from transformers import AutoModelForSequenceClassification

    source = str(path)
    trained = trained_head(source) is not None
    config, encoder, pad_id = _opened(source, max_length, pad_token, trained)
    config.num_labels = 1
    config.use_cache = False
    _pool_around(config, None if pad_id == NO_PADDING else pad_id)
    if dropout is not None:
        set_dropout(config, dropout)
    with quiet(), loading(source), torch.random.fork_rng(devices=[]):
        seed_torch(
            "initial weights", 0
        )  # of layers that the checkpoint lacks (BERT's pooler): every run must start from the same
        model: Any = AutoModelForSequenceClassification.from_pretrained(home_of(source), config=config, dtype=torch.float32)
    _pool_around(model.config, pad_id)
    load_adapters(model, source)
    if dropout is not None:
        set_dropout(model, dropout)
    head = head_of(model)
    head.__class__ = FullPrecisionLinear
    with torch.no_grad():
        if not trained:
            head.weight.zero_()
        if "bias" in dict(head.named_parameters()):
            head.bias.requires_grad_(False)
            if not trained:
                head.bias.zero_()
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return RewardModel(model.eval(), encoder, source)


def reading_of(path: str, max_length: int | None = None) -> tuple[Encoder, int]:
    """Return how a trained reward model reads texts, and the id that it pools around, without loading its weights."""
    return _opened(path, max_length, None, True)[1:]


def _opened(source: str, max_length: int | None, wanted: str | None, trained: bool) -> tuple[Any, Encoder, int]:
    """Return config, encoder and the id that is pooled around."""
    from transformers import AutoConfig

    with loading(source):
        config = AutoConfig.from_pretrained(home_of(source))
        tokenizer = tokenizer_of(source)
    return config, *_reading(source, config, tokenizer, longest(config, tokenizer, max_length), wanted, trained)


def _reading(
    source: str, config: Any, tokenizer: Any, max_length: int, wanted: str | None, trained: bool
) -> tuple[Encoder, int]:
    """Return how a model reads texts, and the id that it pools around."""
    encoder = Encoder(tokenizer, max_length)
    if not trained or wanted is not None or encoder.pairs:
        encoder = Encoder(tokenizer, max_length, padding_token(tokenizer, wanted))
        return encoder, encoder.pad_id
    adapted = tokenizer_home(source) != home_of(source)  # then the config is the base's, which was trained with another padding
    kept: int | None = tokenizer.pad_token_id if adapted else pooled_around(config)
    if kept is None:
        return encoder, NO_PADDING
    encoder.pad_id, encoder.pad_token = kept, tokenizer.convert_ids_to_tokens(kept)
    return encoder, kept


def pooled_around(config: Any) -> int | None:
    """Return the id of the padding token that a classifier looks for, None where its config has none."""
    own = getattr(config.get_text_config(), "pad_token_id", None)
    return getattr(config, "pad_token_id", None) if own is None else own


def pooled_places(config: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return where a decoder's classifier reads each row of ids, [B]: at the rightmost token that is no padding."""
    places = torch.arange(ids.shape[1], device=ids.device)
    return (places * (ids != pooled_around(config))).argmax(1)


def _pool_around(config: Any, pad_id: int | None) -> None:
    config.get_text_config().pad_token_id = config.pad_token_id = pad_id


class FullPrecisionLinear(nn.Linear):
    """A linear layer that computes in float32 under autocast: rewards of 8 bits tie, and ties count as right."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return nn.functional.linear(input.float(), self.weight, self.bias)


def head_of(model: nn.Module) -> nn.Linear:
    """Return the linear layer with one output: the last of the model."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if not layers:
        raise UnsupportedError(f"{type(model).__name__} has no linear layer with one output, so no head for a scalar reward")
    return layers[-1]


def load_scorer(path: str | Path, max_length: int | None = None, device: str | None = None) -> RewardModel:
    """Load a trained reward model to score with.

    Args:
        path: A directory or a Hub repository.
        max_length: See `load_reward_model`.
        device: See `load_reward_model`.

    Raises:
        UnsupportedError: If the checkpoint has no scalar head.
    """
    refuse_headless(path)
    return load_reward_model(path, max_length=max_length, device=device)


def refuse_headless(path: str | Path) -> None:
    """Refuse a checkpoint that is no trained reward model.

    Raises:
        UnsupportedError: If it has no scalar head.
    """
    if trained_head(str(path)) is None:
        raise UnsupportedError(
            f"{path}: has no scalar head ({' or '.join(HEADS[:2])}), so it is no reward model; train one first "
            "(warmkit train rm)"
        )


def trained_head(source: str) -> LazyTensor | None:
    """Return the weight of a checkpoint's scalar head, [1, hidden], not read yet; None where it has none.

    Raises:
        UnsupportedError: If it was trained with several labels.
    """
    checkpoint = open_checkpoint(source)
    for name in HEADS:
        if name in checkpoint:
            labels = checkpoint[name].shape[0]
            if labels != 1:
                raise UnsupportedError(
                    f"{source}: {name} has {labels} labels, expected a scalar reward of one; a head trained on classes "
                    "cannot be read as a reward. Start from the checkpoint without its head"
                )
            return checkpoint[name]
    return None
