"""Write a trained model as a plain directory that transformers, old and new, vLLM and RewardBench load as it is.

The config and the tokenizer are those of the checkpoint that training started from, edited only where training makes them
untrue: saving them through transformers has silently changed values for older readers.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from warmkit.common.json_files import dump_json, read_object
from warmkit.common.whole_files import flush, writing
from warmkit.layouts.companions import companion_files, copy_companions
from warmkit.layouts.opening import open_checkpoint
from warmkit.modeling.quiet import quiet

EDITED = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
SCALAR = {"num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


def save_model(
    model: Any,
    init: str,
    target: Path,
    *,
    weights: dict[str, torch.Tensor] | None = None,
    config: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
) -> None:
    """Write weights, config and tokenizer; `target` appears complete or not at all.

    Args:
        model: A transformers model.
        init: The checkpoint that it started from, donor of config and tokenizer.
        target: Directory, replaced if it is there.
        weights: The model's, put together where it holds but a shard of them.
        config: Entries of `config.json` that training changed.
        tokenizer: Entries of `tokenizer_config.json` that training changed.
        generation: Entries of `generation_config.json` that training changed.

    Raises:
        OutputError: If it cannot be written.
    """
    donor = open_checkpoint(init)
    partial = target.with_name(f".{target.name}.partial")
    with writing(target):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with quiet():
            model.save_pretrained(partial, state_dict=weights)
        name = type(model).__name__.removeprefix("FSDP")  # torch's name for the class of a sharded model
        edits = {"architectures": [name], "dtype": "float32", **(config or {})}
        copy_companions(donor, companion_files(donor), partial, None)
        (partial / "config.json").write_bytes(dump_json(readable_everywhere({**donor.config, **edits})))
        _edit_tokenizer(partial, tokenizer or {})
        _edit_generation(partial, generation or {})
        for file in partial.iterdir():
            flush(file)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        flush(target.parent)


def check_savable(init: str) -> None:
    """Refuse before training what could not be saved after it.

    Args:
        init: The checkpoint that a model starts from, donor of config and tokenizer.

    Raises:
        CheckpointError: If weights, config or tokenizer are of a kind that is not copied.
    """
    donor = open_checkpoint(init)
    companion_files(donor)
    for home in {donor.path, donor.tokenizer_home or donor.path}:
        for name in EDITED:
            if (home / name).is_file():
                read_object(home / name)


def save_new_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model that started from no checkpoint, with its tokenizer."""
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    file = folder / "config.json"
    file.write_bytes(dump_json(readable_everywhere(read_object(file))))


def readable_everywhere(config: dict[str, Any]) -> dict[str, Any]:
    """Add the names that older or newer transformers read for the same thing."""
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope and "rope_theta" not in config:
        config = {**config, "rope_theta": rope["rope_theta"]}
    if "dtype" in config:
        config = {**config, "torch_dtype": config["dtype"]}
    return config


def _edit_tokenizer(folder: Path, changed: dict[str, Any]) -> None:
    file = folder / "tokenizer_config.json"
    if not file.exists():
        return
    content = read_object(file)
    edits = {key: value for key, value in changed.items() if _content(content.get(key)) != value}
    if content.get("tokenizer_class") == "TokenizersBackend":  # the name of transformers 5 alone
        edits["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(content.get("extra_special_tokens"), list):  # transformers 4 expects a mapping under this name
        edits["additional_special_tokens"] = content.pop("extra_special_tokens")
    if edits:
        file.write_bytes(dump_json({**content, **edits}))
    special = folder / "special_tokens_map.json"
    if "pad_token" in edits and special.exists():
        special.write_bytes(dump_json({**read_object(special), "pad_token": edits["pad_token"]}))


def _edit_generation(folder: Path, changed: dict[str, Any]) -> None:
    file = folder / "generation_config.json"
    content = read_object(file) if file.exists() else {}
    if any(content.get(key) != value for key, value in changed.items()):
        file.write_bytes(dump_json({**content, **changed}))


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
