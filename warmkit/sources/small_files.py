"""Names of the small files that belong to a model: which are copied with it, and which are its tokenizer's."""

from __future__ import annotations

KEPT = (".json", ".txt", ".model", ".jinja", ".py", ".tiktoken", ".spm", ".bpe")
# What a training run leaves behind describes the run, not the merged model; an adapter's config, or that of quantised
# weights, would make it something else to loaders.
DROPPED = frozenset(
    (
        *("warmkit.json", "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json", "README.md"),
        *("training_args.json", "zero_to_fp32.py", "adapter_config.json"),
        *("quantize_config.json", "quant_config.json", "hf_quant_config.json"),
    )
)
TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    TEMPLATE,
)
