"""Tokens of (prompt, answer): the one place that knows about EOS, chat templates, truncation and padding.

Every model that scores or learns reads its text through `Encoder`, so that training, evaluation and RL cannot differ.

    decoder, texts   prompt answer EOS, and what the tokenizer puts around a text (BOS)
    decoder, chats   what the chat template writes, and nothing else
    encoder          [CLS] prompt [SEP] answer [SEP]

Too long: a decoder loses its oldest tokens, BOS stays; an encoder the end of the prompt, then the end of the answer. What a
decoder reads is what TRL's RewardTrainer (1.16) and `apply_chat_template` give, so that a model scores here as it does there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jinja2 import TemplateError

from warmkit.data.chats import Chat, Messages, options_of, spoken
from warmkit.errors import DataError, UnsupportedError
from warmkit.modeling.positions import room_for
from warmkit.modeling.weights import tokenizer_home

Text: TypeAlias = "str | Messages"


@dataclass(frozen=True)
class Tokens:
    """One encoded text.

    Attributes:
        ids: Token ids.
        answer: Where the answer starts in `ids`; for an encoder also where the second token type starts. -1 where a chat
            template does not tell.
        truncated: How many tokens were cut away.
    """

    ids: list[int]
    answer: int
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Right-padded tokens.

    Attributes:
        ids: [B, T].
        mask: [B, T], 1 for tokens.
        types: [B, T], 1 from the answer on; None for models without token types.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    types: torch.Tensor | None

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the arguments of a transformers model."""
        arguments = {"input_ids": self.ids, "attention_mask": self.mask}
        return arguments if self.types is None else {**arguments, "token_type_ids": self.types}


class Encoder:
    """Encodes text for one model.

    Args:
        tokenizer: Of transformers.
        max_length: Tokens a text may have.
        pad_token: What to pad with; by default what the tokenizer says, else EOS. Padding is masked; what it means to the model
            is for the caller to know.

    Raises:
        UnsupportedError: If the tokenizer has no token to end a text with.
    """

    def __init__(self, tokenizer: Any, max_length: int, pad_token: str | None = None) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self.pairs = tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None
        if not self.pairs and tokenizer.eos_token_id is None:
            raise UnsupportedError(
                f"{tokenizer.name_or_path}: the tokenizer has no EOS token, so no answer ends; set eos_token in its "
                "tokenizer_config.json"
            )
        self.typed = self.pairs and "token_type_ids" in tokenizer.model_input_names  # RoBERTa and DistilBERT have no types
        self.pad_token: str = pad_token or tokenizer.pad_token or tokenizer.eos_token
        self.pad_id: int = tokenizer.convert_tokens_to_ids(self.pad_token)

    @property
    def templated(self) -> bool:
        """Whether chats are written by a template; what separates segments for an encoder is none."""
        return bool(self.tokenizer.chat_template) and not self.pairs

    def encode(self, texts: Sequence[tuple[Text, Text]], *, closed: bool = False) -> list[Tokens]:
        """Return the tokens of (prompt, answer) pairs.

        Args:
            texts: Texts or chats.
            closed: Put EOS behind a chat whose template leaves the last turn open: who learns to write must learn to end.
        """
        if self.pairs:
            prompts = self._ids([_plain(prompt) for prompt, _ in texts])
            answers = self._ids([_plain(answer) for _, answer in texts])
            return [self._pair(prompt, answer) for prompt, answer in zip(prompts, answers)]
        rendered = [self._render(prompt, answer) for prompt, answer in texts]
        wholes = [(prompt or "") + answer for prompt, answer in rendered]
        chats = [not (isinstance(prompt, str) and isinstance(answer, str)) for prompt, answer in texts]
        ended = [self._ended(whole, chat and not closed) for whole, chat in zip(wholes, chats)]
        prompts = self._ids([prompt or "" for prompt, _ in rendered])
        tokens = [self._sequence(whole, len(prompt), chat) for whole, prompt, chat in zip(self._ids(ended), prompts, chats)]
        return [each if prompt is not None else replace(each, answer=-1) for each, (prompt, _) in zip(tokens, rendered)]

    def encode_prompts(self, prompts: Sequence[Text], room: int) -> list[Tokens]:
        """Return what an answer is sampled after: no EOS, a chat opened for the assistant, the newest `room` tokens."""
        opened = self._ids([self._opened(prompt) for prompt in prompts])
        return [self._opening(ids, room, not isinstance(prompt, str)) for ids, prompt in zip(opened, prompts)]

    def decode(self, completions: Sequence[list[int]], joined: Sequence[bool] | None = None) -> list[str]:
        """Return the texts of completions, without special tokens.

        Args:
            completions: Token ids.
            joined: Which of them go on after a text: those keep the space that decoders of SentencePiece take from the first
                word. The answer of a chat is a text of its own, and loses it; by default all do.
        """
        texts: list[str] = self.tokenizer.batch_decode(completions, skip_special_tokens=True)
        if joined is None or not self._marks_spaces:
            return texts
        anchor = self._ids(["a"])[0]
        behind = self.tokenizer.batch_decode([[*anchor, *each] for each in completions], skip_special_tokens=True)
        start = len(self.tokenizer.decode(anchor))
        return [long[start:] if join else text for text, long, join in zip(texts, behind, joined)]

    @functools.cached_property
    def _marks_spaces(self) -> bool:
        """Whether words are marked by what SentencePiece writes for the space before them."""
        return str(self.tokenizer.convert_ids_to_tokens(self._ids(["a a"])[0][-1])).startswith("\u2581")

    def batch(self, tokens: Sequence[Tokens], device: torch.device | str = "cpu") -> Batch:
        """Pad on the right."""
        width = max(map(len, tokens))
        ids = torch.full((len(tokens), width), self.pad_id)
        mask = torch.zeros_like(ids)
        types = torch.zeros_like(ids) if self.typed else None
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = torch.tensor(each.ids)
            mask[row, : len(each)] = 1
            if types is not None:
                types[row, each.answer : len(each)] = 1
        return Batch(ids.to(device), mask.to(device), None if types is None else types.to(device))

    def _ids(self, texts: list[str]) -> list[list[int]]:
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}  # prompts repeat
        found = self.tokenizer([*places], add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        return [found[places[text]] for text in texts]

    def _pair(self, prompt: list[int], answer: list[int]) -> Tokens:
        first, between, last = self._frame
        room = self.max_length - len(first) - len(between) - len(last)
        kept_answer = answer[:room]
        kept_prompt = prompt[: room - len(kept_answer)]
        cut = len(prompt) + len(answer) - len(kept_prompt) - len(kept_answer)
        start = len(first) + len(kept_prompt) + len(between)
        return Tokens([*first, *kept_prompt, *between, *kept_answer, *last], start, cut)

    @functools.cached_property
    def _frame(self) -> tuple[list[int], list[int], list[int]]:
        """What the tokenizer puts before, between and after two texts: BERT one separator between, RoBERTa two."""
        both = self.tokenizer("a", "b", return_special_tokens_mask=True)
        ids, mask = both["input_ids"], both["special_tokens_mask"]
        texts = [place for place, special in enumerate(mask) if not special]
        gap = next(place for place in texts if mask[place + 1])
        after = next(place for place in texts if place > gap)
        return ids[: texts[0]], ids[gap + 1 : after], ids[texts[-1] + 1 :]

    def _ended(self, whole: str, as_it_is: bool) -> str:
        """Append EOS to a text that does not end with it, or to a chat whose last turn is open."""
        end = self.tokenizer.eos_token
        if as_it_is or whole.endswith(end):
            return whole
        return whole if whole.rstrip().endswith(self._turn_ends) else whole + end

    @functools.cached_property
    def _turn_ends(self) -> tuple[str, ...]:
        """Tokens that are no words: a template that writes one of them last has ended the turn (`<|im_end|>` and a newline)."""
        return tuple(token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)

    def _sequence(self, whole: list[int], prompt: int, chat: bool) -> Tokens:
        first, body, last = self._framed(whole, chat)
        cut = max(0, len(first) + len(body) + len(last) - self.max_length)
        ids = [*first, *body[cut:], *last]
        start = len(first) + max(0, prompt - (len(whole) - len(body)) - cut)
        return Tokens(ids, min(start, len(ids) - 1), cut)

    def _opening(self, body: list[int], room: int, chat: bool) -> Tokens:
        first, body, _ = self._framed(body, chat)
        cut = max(0, len(first) + len(body) - room)
        ids = [*first, *body[cut:]]
        return Tokens(ids, len(ids), cut)

    def _framed(self, whole: list[int], chat: bool) -> tuple[list[int], list[int], list[int]]:
        """Divide tokens into a beginning that stays, what may be cut, and an end that stays.

        The template says where a chat begins; a text begins and ends as the tokenizer says.
        """
        before, after = ([], []) if chat else self._around
        start = [self.tokenizer.bos_token_id]
        opened = whole[:1] == start
        return (start, whole[1:], after) if opened else (before, whole, after)

    @functools.cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after one text."""
        plain, whole = self._ids(["a"])[0], self.tokenizer("a")["input_ids"]
        for place in range(len(whole) - len(plain) + 1):
            if whole[place : place + len(plain)] == plain:
                return whole[:place], whole[place + len(plain) :]
        return [], []

    def _render(self, prompt: Text, answer: Text) -> tuple[str | None, str]:
        """Return prompt and answer as they are read; all of a chat for the answer where it cannot be told where that starts."""
        if isinstance(prompt, str) and isinstance(answer, str):
            return prompt, answer
        before = Chat([{"role": "user", "content": prompt}]) if isinstance(prompt, str) else prompt
        after = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
        options = {**options_of(before), **options_of(after)}
        opening, whole = self._template(before, True, options), self._template([*before, *after], False, options)
        if not whole.startswith(opening):
            opening = self._before_answer(before, after, options)
        return (opening, whole[len(opening) :]) if opening and whole.startswith(opening) else (None, whole)

    def opens_otherwise(self, prompt: Text, answer: Text) -> str | None:
        """Return what the template opens an answer with, where a finished chat has something else in its place; else None."""
        if isinstance(prompt, str):
            return None
        opened, (before, _) = self._opened(prompt), self._render(prompt, answer)
        return opened[len(os.path.commonprefix([opened, before or ""])) :] or None  # noqa: RUF071  (texts, not paths)

    def _before_answer(self, before: Messages, after: Messages, options: Mapping[str, Any]) -> str:
        """Return what the template writes before an answer, whatever the answer is.

        Not always what it opens an answer with: DeepSeek-R1's opens a thought, and leaves thoughts out of a finished chat.
        """
        probes = ([*before, {**after[0], "content": text}, *after[1:]] for text in ("0", "1"))
        return os.path.commonprefix([self._template(probe, False, options) for probe in probes])  # noqa: RUF071  (not paths)

    def _opened(self, prompt: Text) -> str:
        return prompt if isinstance(prompt, str) else self._template(prompt, True, options_of(prompt))

    def _template(self, messages: Messages, opened: bool, options: Mapping[str, Any]) -> str:
        if not self.tokenizer.chat_template:
            raise UnsupportedError(
                f"{self.tokenizer.name_or_path}: the data are chats, and the tokenizer has no chat template; give texts, or "
                "put a chat_template.jinja beside the tokenizer"
            )
        try:
            return self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened, **options)
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(f"the chat template of {self.tokenizer.name_or_path} refuses a chat of {roles}: {error}") from None


def padding_token(tokenizer: Any, wanted: str | None = None) -> str:
    """Choose what a new head pads with: a token that never ends a text, so that pooling finds the last token.

    `AutoModelForSequenceClassification` of a decoder reads the rightmost token that is not padding. Where padding is EOS
    it would read the token before the end. So: the tokenizer's own padding if it is not EOS, else its unknown token, else BOS,
    else another token that is no word (Qwen's `<|im_start|>`). A head that was trained keeps what it was trained with.

    Raises:
        UnsupportedError: If there is none of these, or `wanted` is not in the vocabulary or is EOS.
    """
    end = tokenizer.eos_token
    if wanted is not None:
        if wanted not in tokenizer.get_vocab() or wanted == end:
            raise UnsupportedError(f"pad_token {wanted!r}: expected a token of the vocabulary other than EOS ({end!r})")
        return wanted
    named = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token)
    added = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    for token in (*named, *added):
        if token is not None and token != end:
            return token
    raise UnsupportedError(
        f"{tokenizer.name_or_path}: no padding token other than EOS; set model.pad_token to a token that no text ends with"
    )


def masked_padding(tokenizer: Any, wanted: str | None = None) -> str:
    """Choose what a language model pads with; it is masked and never read, so that any token but EOS serves.

    Raises:
        UnsupportedError: If `wanted` is not in the vocabulary or is EOS.
    """
    try:
        return padding_token(tokenizer, wanted)
    except UnsupportedError:
        if wanted is not None:
            raise
        vocabulary = tokenizer.get_vocab()
        return min((each for each in vocabulary if each != tokenizer.eos_token), key=lambda each: vocabulary[each])


def _plain(text: Text) -> str:
    return text if isinstance(text, str) else spoken(text)


def by_length(lengths: Sequence[int], most: int, waste: float = 0.2, least: int = 4) -> list[list[int]]:
    """Group places by length, longest first, so that little is padded.

    A group is closed when it is full, or when the next text is shorter than (1 - waste) of the group's longest and the group
    has `least` members (tiny batches cost more than padding).

    Args:
        lengths: Tokens of every text.
        most: Padded tokens that a group may have.
        waste: Share of padding that a single text may have.
        least: Texts that a group takes whatever their lengths.

    Examples:
        >>> by_length([5, 90, 6, 100], most=1000, waste=0.2)
        [[3, 1, 2, 0]]
        >>> by_length([10] * 4 + [100] * 4, most=10_000)
        [[4, 5, 6, 7], [0, 1, 2, 3]]
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[groups[-1][0]] if groups else 0
        full = (len(groups[-1]) + 1) * longest > most if groups else True
        if full or (len(groups[-1]) >= least and lengths[place] < (1 - waste) * longest):
            groups.append([])
        groups[-1].append(place)
    return groups


def tokenizer_of(path: str | Path) -> Any:
    """Load a tokenizer, padding on the right."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_home(str(path)))
    tokenizer.padding_side = "right"
    return tokenizer


def longest(config: Any, tokenizer: Any, wanted: int | None) -> int:
    """Return how many tokens a text may have: `wanted`, or what model and tokenizer allow, 4096 at most.

    Raises:
        UsageError: If `wanted` is more than the model has positions.
    """
    return min(room_for(config, wanted), wanted or tokenizer.model_max_length)
