"""Tokenizer and config of a result whose vocabulary is not that of the model they are copied from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from warmkit.common.json_files import dump_json, read_object
from warmkit.formats.checkpoint import Checkpoint

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")


def named_tokens(checkpoint: Checkpoint) -> frozenset[str]:
    """Return the tokens that a tokenizer needs: those with a role, and those that it puts around a text."""
    named: set[str] = set()
    check_forms(checkpoint.directory)
    check_forms(checkpoint.tokenizer_home)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        content = _read(checkpoint, file)
        for role in ROLES:
            value = content.get(f"{role}_token")
            named.add(_content(value))
    _visit_processor(_read(checkpoint, "tokenizer.json").get("post_processor"), lambda token, _: named.add(token))
    return frozenset(named)


def _read(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    path = checkpoint.tokenizer_home / name if checkpoint.tokenizer_home else None
    return read_object(path) if path is not None and path.is_file() else {}


def check_forms(folder: Path | None) -> None:
    """Read the small files of a tokenizer that a merge of vocabularies edits at its end, so that what is wrong is said first.

    Raises:
        FormatError: If one holds no JSON object.
    """
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json")
    for path in (folder / name for name in names) if folder is not None else ():
        if path.is_file():
            read_object(path)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _content(token: Any) -> str:
    """Return the text of a token that a config names, bare or as an object; "" for anything else."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""


def _visit_processor(node: Any, visit: Callable[[str, Any], Any]) -> None:
    """Call `visit(token, container)` for every token of a post-processor, in all its forms."""
    if isinstance(node, dict):
        if isinstance(node.get("ids"), list) and isinstance(node.get("tokens"), list):
            for token in filter(_is_text, node["tokens"]):
                visit(token, node)
        for key in ("sep", "cls"):
            if isinstance(node.get(key), list) and len(node[key]) == 2 and _is_text(node[key][0]):
                visit(node[key][0], node[key])
        for value in node.values():
            _visit_processor(value, visit)
    elif isinstance(node, list):
        for value in node:
            _visit_processor(value, visit)


def write_tokenizer(
    added: Sequence[Mapping[str, Any]], before: Mapping[str, int], after: Mapping[str, int], old_rows: int | None, rows: int
) -> Callable[[Path], None]:
    """Return what makes the copied files of a result true.

    Args:
        added: Added tokens of the result.
        before: Ids of all tokens in the copied files.
        after: Ids of all tokens in the result.
        old_rows: Rows of the embedding that the copied config describes.
        rows: Rows of the result's.
    """
    moved = {place: after.get(token) for token, place in before.items()}

    def finish(target: Path) -> None:
        _edit(target / "tokenizer.json", lambda content: _tokenizer(content, added, after))
        _edit(target / "tokenizer_config.json", lambda content: _tokenizer_config(content, added))
        _edit(target / "added_tokens.json", lambda content: {token["content"]: token["id"] for token in added})
        _edit(target / "config.json", lambda content: _config(content, moved, old_rows, rows))
        _edit(target / "generation_config.json", lambda content: _config(content, moved, None, rows))

    return finish


def _edit(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if path.is_file():
        path.write_bytes(dump_json(change(read_object(path))))


def _tokenizer(content: dict[str, Any], added: Sequence[Mapping[str, Any]], after: Mapping[str, int]) -> dict[str, Any]:
    def move(token: str, container: Any) -> None:
        if isinstance(container, list):
            container[1] = after.get(token, container[1])
        else:
            container["ids"] = [after.get(each, place) for each, place in zip(container["tokens"], container["ids"])]

    _visit_processor(content.get("post_processor"), move)
    padding = content.get("padding")
    if isinstance(padding, dict) and _is_text(padding.get("pad_token")) and padding["pad_token"] in after:
        padding["pad_id"] = after[padding["pad_token"]]
    return {**content, "added_tokens": sorted((dict(token) for token in added), key=lambda token: token["id"])}


def _tokenizer_config(content: dict[str, Any], added: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = {token["content"] for token in added}
    for key in ("additional_special_tokens", "extra_special_tokens"):
        if isinstance(content.get(key), list):
            content[key] = [token for token in content[key] if _content(token) in names]
    if "added_tokens_decoder" in content:
        ordered = sorted(added, key=lambda token: token["id"])
        content["added_tokens_decoder"] = {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in ordered
        }
    return content


def _config(content: Any, moved: Mapping[int, int | None], old_rows: int | None, rows: int) -> Any:
    """Move every id of a token in a config, at any depth, and set `vocab_size` where it said how many rows there were."""
    if not isinstance(content, dict):
        return content
    result: dict[str, Any] = {}
    for key, value in content.items():
        if key == "vocab_size" and value == old_rows:
            result[key] = rows
        elif key.endswith(("_token_id", "_token_ids", "_token_index")) or key in ID_LISTS:
            result[key] = _moved(value, moved)
        elif key == "forced_decoder_ids" and isinstance(value, list):
            pairs = [each if isinstance(each, list) and len(each) == 2 else [None, None] for each in value]
            result[key] = [[at, _moved(token, moved)] for at, token in pairs]
        else:
            result[key] = _config(value, moved, old_rows, rows)
    return result


def _moved(value: Any, moved: Mapping[int, int | None]) -> Any:
    if isinstance(value, list):
        return [place for each in value if (place := _moved(each, moved)) is not None]
    return moved.get(value, value) if isinstance(value, int) and not isinstance(value, bool) else value
