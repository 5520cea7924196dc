"""Generation settings of a checkpoint: where a completion ends, what is never said, and what is not followed here.

Other engines (transformers, vLLM) read the same `generation_config.json`, so a completion ends here where it ends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from warmkit.errors import UsageError

NEUTRAL: dict[str, Any] = {
    **dict.fromkeys(("temperature", "top_p", "top_h", "typical_p", "repetition_penalty", "encoder_repetition_penalty"), 1.0),
    **dict.fromkeys(("num_beams", "guidance_scale"), 1),
    **dict.fromkeys(
        ("top_k", "min_p", "epsilon_cutoff", "eta_cutoff", "no_repeat_ngram_size", "min_length", "min_new_tokens"), 0
    ),
    **dict.fromkeys(("bad_words_ids", "sequence_bias", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id")),
    **dict.fromkeys(("exponential_decay_length_penalty", "stop_strings", "watermarking_config")),
}
"""Keys with which transformers samples from another distribution than the model's own, or ends elsewhere, and the value with
which they do nothing."""


def ends_of(model: Any, tokenizer: Any, stop: Sequence[str] = (), key: str = "stop") -> tuple[int, ...]:
    """Return the ids that end a completion, each once.

    They are the tokenizer's EOS, every `eos_token_id` of the generation config (of the config where there is none), the token
    with which the chat template ends an answer, and those of the user.

    Args:
        model: A language model of transformers.
        tokenizer: Its tokenizer.
        stop: Tokens of the vocabulary, or texts that are one token.
        key: Where `stop` was named, for messages.

    Raises:
        UsageError: If one of `stop` is no token.
    """
    said = getattr(model.generation_config, "eos_token_id", None)
    known = [tokenizer.eos_token_id, *(said if isinstance(said, list | tuple) else [said]), turn_end(tokenizer)]
    size = model.config.get_text_config().vocab_size
    own = [int(each) for each in known if each is not None and each < size]  # configs name ids of the original's vocabulary
    return tuple(dict.fromkeys([*own, *token_ids(tokenizer, stop, key)]))


def banned_of(model: Any, tokenizer: Any, banned: Sequence[str] = (), key: str = "banned") -> tuple[int, ...]:
    """Return the ids that are never sampled: `suppress_tokens` of the generation config, and those of the user.

    Raises:
        UsageError: If one of `banned` is no token.
    """
    said = getattr(model.generation_config, "suppress_tokens", None) or ()
    own = [int(each) for each in said if 0 <= each < model.config.get_text_config().vocab_size]
    return tuple(dict.fromkeys([*own, *token_ids(tokenizer, banned, key)]))


def saved_ends(model: Any, ends: Sequence[int]) -> dict[str, Any]:
    """Return the entries of `generation_config.json` with which other engines end where `ends` do; none if they do already."""
    said = getattr(model.generation_config, "eos_token_id", None)
    known = said if isinstance(said, list | tuple) else [said]
    if {*ends} <= {*known}:
        return {}
    return {"eos_token_id": ends[0] if len(ends) == 1 else list(ends)}


def not_followed(model: Any) -> dict[str, Any]:
    """Return what the generation config asks for and is not done here, where the model's own distribution is sampled."""
    said = model.generation_config.to_dict()
    return {key: said[key] for key, nothing in NEUTRAL.items() if said.get(key) not in (None, [], {}, nothing)}


def told(asked: dict[str, Any]) -> str:
    """Say what `not_followed` found, in one line."""
    listed = ", ".join(f"{key} {value!r:.60}" for key, value in asked.items())
    return f"generation_config.json asks for {listed}: not followed, the model's own distribution is sampled"


def turn_end(tokenizer: Any) -> int | None:
    """Return the special token that the chat template writes right after an answer, if it writes one."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    answer = "answer"
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    try:
        rendered = tokenizer.apply_chat_template(chat, tokenize=False)
    except (TemplateError, ValueError, TypeError, KeyError):  # a template of another shape of chat
        return None
    after = tokenizer(rendered.rpartition(answer)[2].lstrip(), add_special_tokens=False)["input_ids"][:1]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return after[0] if after and after[0] in special else None


def token_ids(tokenizer: Any, tokens: Sequence[str], key: str) -> tuple[int, ...]:
    r"""Return the ids of tokens, each given as it stands in the vocabulary, or as a text that is one token (such as `\n`).

    Raises:
        UsageError: If one is neither; `key` says where it was named.
    """
    vocabulary = tokenizer.get_vocab()
    found = [vocabulary.get(token, _alone(tokenizer, token)) for token in tokens]
    if unknown := [token for token, each in zip(tokens, found) if each is None]:
        raise UsageError(f"{key}: expected tokens of the vocabulary, found {', '.join(map(repr, unknown))}")
    return tuple(each for each in found if each is not None)


def _alone(tokenizer: Any, text: str) -> int | None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 and tokenizer.decode(ids) == text else None
