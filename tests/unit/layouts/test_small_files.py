"""Small files of another form than expected are named in one line; names in them are never more than shown."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

import warmkit
from tests.conftest import CONFIG, Family, Run
from warmkit.common.json_files import dump_json, parse_json
from warmkit.engine.card import model_card
from warmkit.errors import CheckpointError, FormatError, WarmkitError
from warmkit.layouts.opening import open_checkpoint
from warmkit.layouts.tokenizer import read_vocabulary_file

STRANGE: list[Any] = [None, 1, "x", [], ["x"], {}, {"a": 1}, [[]], True, 1e300]


@pytest.mark.parametrize(
    "text",
    [
        rb'{"a": "\ud800"}',
        rb'{"\udfff": 1}',
        b'{"a": 1e999}',
        b'{"a": NaN}',
        b'{"a": 1, "b": 2, "a": 3}',
        b"[" * 70 + b"]" * 70,
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b"",
    ],
)
def test_json_that_another_reader_may_read_otherwise_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match="FILE: "):
        parse_json(text, "FILE")


def test_pairs_of_surrogates_and_escaped_backslashes_are_characters() -> None:
    assert parse_json(rb'["\ud83d\ude00", "\\ud800"]', "FILE") == ["😀", "\\ud800"]


def test_a_name_that_stands_twice_among_many_is_found_at_once() -> None:
    names = ",".join(f'"t{n}":0' for n in (*range(100_000), 99_999))
    with pytest.raises(FormatError, match="'t99999' is there twice"):
        parse_json(f"{{{names}}}".encode(), "FILE")


def test_half_of_a_character_is_written_as_json_escapes_it() -> None:
    assert json.loads(dump_json({"a": "caf\udce9"})) == {"a": "caf\udce9"}


# ---- tokenizers, configs, manifests ------------------------------------------------------------------------------------

TOKENIZER = {"added_tokens": [{"id": 7, "content": "<a>"}], "model": {"vocab": {f"t{n}": n for n in range(7)}}}


def put(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_tokenizer_is_read_in_both_forms(tmp_path: Path) -> None:
    found = read_vocabulary_file(put(tmp_path / "t.json", TOKENIZER))
    assert found.ids == {**TOKENIZER["model"]["vocab"], "<a>": 7}  # type: ignore[index]
    unigram = {"model": {"vocab": [["a", 0.0], ["b", -1.5]]}}
    assert read_vocabulary_file(put(tmp_path / "t.json", unigram)).ids == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    "change",
    [
        *({"added_tokens": each} for each in ("x", ["x"], [{}], [{"content": 1, "id": 1}], [{"content": "a", "id": {"a": 1}}])),
        *({"added_tokens": [{"content": "a", "id": each}]} for each in (-1, 200_000_000, 1.5, True, None)),
        *({"model": each} for each in ("x", [1], {"vocab": "x"}, {"vocab": {"a": "b"}}, {"vocab": [1]}, {"vocab": [[1, 2]]})),
    ],
)
def test_a_tokenizer_of_another_form_is_named(change: dict[str, Any], family: Family, tmp_path: Path) -> None:
    put(family.a / "tokenizer.json", TOKENIZER)
    put(family.b / "tokenizer.json", {**TOKENIZER, **change})
    for mode in ("strict", "union", "init"):
        with pytest.raises(FormatError, match=r"tokenizer.json: "):
            warmkit.merge([family.a, family.b], tmp_path / "out", method="lerp", vocabulary=mode)


@pytest.mark.parametrize("content", STRANGE)
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"])
def test_configs_beside_a_tokenizer_are_read_before_a_weight(name: str, content: Any, family: Family, tmp_path: Path) -> None:
    for place, path in enumerate((family.a, family.b)):
        more = [{"id": 8 + place, "content": f"<{place}>"}]
        put(path / "tokenizer.json", {**TOKENIZER, "added_tokens": [*TOKENIZER["added_tokens"], *more]})  # type: ignore[misc]
        put(path / name, content)
    try:
        warmkit.merge([family.a, family.b], tmp_path / "out", method="lerp", vocabulary="common", chat_template="auto")
    except WarmkitError as error:
        assert isinstance(content, dict) or str(family.a / name) in str(error) or name == "generation_config.json"  # noqa: PT017


@pytest.mark.parametrize(
    "change", [{"architectures": 5}, {"architectures": {"a": 1}}, {"architectures": [1]}, {"model_type": [1]}]
)
def test_a_config_of_another_form_is_named(change: dict[str, Any], family: Family) -> None:
    put(family.a / "config.json", {**CONFIG, **change})
    with pytest.raises(FormatError, match=r"config.json: expected"):
        _ = open_checkpoint(family.a).config


MANIFEST_KEYS = ["method", "parameters", "models", "init", "rows", "groups", "tensors", "files", "digest", "created", "warmkit"]


@pytest.mark.parametrize("key", MANIFEST_KEYS)
def test_a_manifest_of_another_form_is_named(key: str, family: Family, tmp_path: Path) -> None:
    out = warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init).path
    content = json.loads((out / "warmkit.json").read_text())
    warmkit.verify(out)
    for strange in [each for each in STRANGE if type(each) is not type(content[key]) and not (key == "init" and each is None)]:
        put(out / "warmkit.json", {**content, key: strange})
        with pytest.raises(FormatError, match=rf"warmkit.json: {key} is missing, or not what warmkit writes there"):
            warmkit.verify(out)
    for inner in ([1], [{"a": 1}], {"a": 1}, {"config.json": {"bytes": "x"}}, {"a": {"output": 1}}):
        put(out / "warmkit.json", {**content, key: inner})
        with pytest.raises(WarmkitError):
            warmkit.verify(out)
        if key in ("parameters",):
            break


# ---- paths -------------------------------------------------------------------------------------------------------------


def test_what_is_no_regular_file_is_named_and_not_waited_for(family: Family, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.safetensors"))
        for name, said in (
            ("pipe.safetensors", "expected a file, found a pipe"),
            ("pipe.pt", "expected a file, found a pipe"),
            ("s.safetensors", "expected a file, found a socket"),
            ("loop", "no such file or directory"),
            ("x" * 300, "no such file or directory|File name too long"),
        ):
            with pytest.raises(CheckpointError, match=said):
                open_checkpoint(tmp_path / name, allow_pickle=True)
    (family.a / "model.safetensors").unlink()
    os.mkfifo(family.a / "model.safetensors")
    with pytest.raises(CheckpointError):
        open_checkpoint(family.a)


def test_paths_that_are_not_utf8_are_inputs_and_outputs(family: Family, run: Run, tmp_path: Path) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(family.a, strange)
    done = run("merge", "--method", "lerp", strange, family.b, "-o", f"{strange}-out")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(Path(f"{strange}-out", "warmkit.json").read_text())
    assert manifest["models"][0]["source"] == f"{tmp_path}/caf\\xe9"
    assert run("verify", f"{strange}-out").returncode == 0
    assert "caf\\xe9-none" in run("inspect", f"{strange}-none").stderr


# ---- names -------------------------------------------------------------------------------------------------------------


def test_names_are_only_shown_in_a_terminal(family: Family, run: Run, tmp_path: Path) -> None:
    name = "\x1b[2J[bold]x[red]\x9b:smile:"
    os.rename(family.a, tmp_path / name)
    shown = "\\x1b[2J[bold]x[red]\\x9b:smile:"
    for arguments in (("inspect", name), ("inspect", name + "?"), ("compare", "--init", family.init, name, family.b)):
        done = run(*arguments)
        assert ("?" not in str(arguments)) or shown in done.stderr
        assert not {"\x1b", "\x9b"} & set(done.stdout + done.stderr)
    done = run("inspect", name, "--json")
    assert "\x1b" not in done.stdout
    assert json.loads(done.stdout)["path"].endswith(shown) or name in json.loads(done.stdout)["path"]


def test_names_are_code_or_plain_text_in_a_card() -> None:
    name = "[x](http://y)`<b>|\n# z"
    description = {"method": "lerp", "init": None, "models": [{"source": name}], "parameters": {"eta": 1.0, "tokenizer": name}}
    card = model_card(name, description, None)
    assert "\n# \\[x\\](http://y)\\`\\<b\\>\\|" in card
    assert "\n# z" not in card
    assert "- ``[x](http://y)`<b>\\|\\x0a# z``" in card
    assert "| eta | 1.0 |" in card


def test_an_index_with_a_name_too_long_for_the_system_is_one_line(family: Family) -> None:
    (family.a / "model.safetensors").unlink()
    put(family.a / "model.safetensors.index.json", {"weight_map": {"w": "a" * 300 + ".safetensors"}})
    with pytest.raises(FormatError, match="which is not there"):
        open_checkpoint(family.a)
