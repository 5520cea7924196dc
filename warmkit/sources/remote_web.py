"""Models on a web server, which answers by ranges and lists nothing."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlunsplit

from warmkit.common.addresses import shown
from warmkit.common.json_files import parse_json
from warmkit.errors import CheckpointError
from warmkit.sources.beside import VALUE_HEAD, Beside, modules_of
from warmkit.sources.http_file import AbsentError, HttpFile, Site, web_address
from warmkit.sources.remote import Remote, read_mapping, save, several, temporary_folder
from warmkit.sources.weight_names import INDEX, SINGLE

# A web server lists nothing, so these are asked for by name; remote code is named by the config.
ASKED = (
    *("config.json", "generation_config.json", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "modules.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("preprocessor_config.json", "processor_config.json", "chat_template.json", "spm.model", "source.spm", "target.spm"),
)


def open_web(url: str) -> Remote:
    """Open a model directory, or one `.safetensors` file, at `http://` or `https://`.

    Raises:
        CheckpointError: If it is not there, or cannot be read by ranges.
    """
    address, place, site = web_address(url), shown(url).rstrip("/"), Site()
    folder = temporary_folder(site)
    if address.path.endswith(".safetensors"):
        name = PurePosixPath(address.path).name
        return Remote(place, folder / name, [HttpFile(site, url, place, name)], None)

    def at(name: str) -> str:
        return urlunsplit((address.scheme, address.netloc, f"{address.path.rstrip('/')}/{quote(name)}", address.query, ""))

    def fetch(name: str) -> bytes | None:
        return site.small_file(f"{place}/{name}", at(name))

    save(folder, {name: body for name, body in zip(ASKED, several(fetch, ASKED)) if body is not None})
    code = _remote_code(folder)
    save(folder, {name: body for name, body in zip(code, several(fetch, code)) if body is not None})

    def opened(name: str) -> HttpFile:
        return HttpFile(site, at(name), f"{place}/{name}", name)

    def perhaps(name: str) -> HttpFile | None:
        with contextlib.suppress(AbsentError):
            return opened(name)
        return None

    modules = modules_of(folder)
    configs = [f"{name}/config.json" for name in modules]
    save(folder, {name: body for name, body in zip(configs, several(fetch, configs)) if body is not None})
    asked = [VALUE_HEAD, *(f"{name}/{SINGLE}" for name in modules)]
    others = [file for file in several(perhaps, asked) if file is not None]
    beside = Beside(tuple(file.name for file in others), ())
    index = fetch(INDEX)
    if index is not None:
        mapping = read_mapping(index, f"{place}/{INDEX}")
        return Remote(place, folder, several(opened, sorted(set(mapping.values()))), mapping, beside, [*others])
    try:
        return Remote(place, folder, [opened(SINGLE)], None, beside, [*others])
    except AbsentError:
        raise CheckpointError(f"{place}: expected {SINGLE} or {INDEX}, the server has neither") from None


def _remote_code(folder: Path) -> list[str]:
    """Return the modules that `auto_map` in config.json names, as `modeling.Model`."""
    path = folder / "config.json"
    config = parse_json(path.read_bytes(), path) if path.is_file() else {}
    mapped = config.get("auto_map") if isinstance(config, dict) else None
    values = mapped.values() if isinstance(mapped, dict) else ()
    return sorted({f"{value.split('.')[0]}.py" for value in values if isinstance(value, str) and re.match(r"\w+\.", value)})
