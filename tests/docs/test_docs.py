"""The documentation tells the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import pytest

from tests.conftest import Run
from tests.docs.cli_page import commands, page
from tests.docs.recipes_page import page as recipes_page
from warmkit.merging.methods import METHODS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_page_of_the_command_line_is_what_the_commands_say() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == page(), "run: python -m tests.docs.cli_page > docs/cli.md"


def test_the_page_of_the_recipes_is_what_their_dataclasses_say() -> None:
    assert (ROOT / "docs" / "recipes.md").read_text() == recipes_page(), (
        "run: python -m tests.docs.recipes_page > docs/recipes.md"
    )


def test_every_command_is_documented_with_an_example_and_the_shared_options() -> None:
    text = page()
    for name, command in commands().items():
        assert f"## `warmkit {name}" in text
        if name != "methods":
            assert f"`warmkit {name} " in command.help, f"{name} has no example"
        options = {option for each in command.params for option in each.opts}
        assert {"-q", "-v", "--json"} <= options


def test_the_page_of_methods_lists_every_method() -> None:
    text = (ROOT / "docs" / "methods" / "README.md").read_text()
    assert not [name for name in METHODS if f"`{name}`" not in text], "these need a row in docs/methods/README.md"


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_number_of_methods_is_said_as_it_is(page: str) -> None:
    said = re.findall(r"(\d+) methods", (ROOT / page).read_text())
    assert said == [str(len(METHODS))], f"{page}: expected '{len(METHODS)} methods', found {', '.join(said) or 'no number'}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    defined = re.findall(r"^\[[^\]]+\]: ([^\s#]+)", text, re.MULTILINE)
    for target in [*re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text), *defined]:
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


def test_every_link_by_name_has_its_address() -> None:
    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"\]\[([\w-]+)\]", text))
    assert used == set(re.findall(r"^\[([\w-]+)\]: ", text, re.MULTILINE))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_option_and_command_that_a_page_shows_exists(path: Path) -> None:
    known = commands()
    blocks = "".join(re.findall(r"^```.*?^```", path.read_text(), re.MULTILINE | re.DOTALL))
    for line in re.findall(r"^\s*(?:\$ |- run: )?warmkit ([^\n#|>;]*)", blocks, re.MULTILINE):
        words = re.sub(r"'[^']*'", "QUOTED", line).split()
        if not words or words[0].startswith("-"):
            continue
        name = next((name for name in (words[0], " ".join(words[:2])) if name in known), None)
        assert name is not None, line
        options = {option for each in known[name].params for option in [*each.opts, *each.secondary_opts]}
        shown = {word.split("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
        assert shown <= options | {"--help", "-h"}, line


def test_help_imports_neither_torch_nor_numpy(run: Run) -> None:
    heavy = "{'torch', 'numpy', 'numba'} & set(sys.modules)"
    code = f"import sys; from warmkit.cli.app import app; import warmkit; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
    for name in ("", *commands()):
        done = run(*name.split(), "--help")
        assert done.returncode == 0
        assert "Usage: warmkit" in " ".join(done.stdout.replace("python -m ", "").split())


def test_a_merge_on_the_cpu_imports_no_torch(run: Run, tmp_path: Path) -> None:
    from tests.conftest import make_family

    family = make_family(tmp_path)
    arguments = ["merge", "--init", str(family.init), str(family.a), str(family.b), "-o", str(tmp_path / "out")]
    code = (
        f"import sys; from warmkit.cli.app import app; app({arguments!r}, standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().endswith("False")


def test_the_site_draws_no_part_of_a_docstring_as_a_note() -> None:
    """`Examples:` is a section of Google's style, and `Example:` is a note; so is `Source:` before lines that are indented."""
    package = griffe.load("warmkit", search_paths=[ROOT], resolve_aliases=False)
    notes = [each.path for each in _documented(package) if any(_is_note(part) for part in each.docstring.parse("google"))]
    assert [each for each in notes if not each.startswith("warmkit.evidence.")] == []


def test_every_argument_on_the_page_of_the_api_is_described() -> None:
    package = griffe.load("warmkit", search_paths=[ROOT], resolve_aliases=False)
    names = re.findall(r"^::: warmkit\.(\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert len(names) >= 35
    for found in (package[name] for name in names):
        for each in [found, *(found.functions.values() if found.is_class else [])]:
            assert each.name.startswith("_") or _arguments(each) <= _described(each), each.path


def _arguments(found: griffe.Object) -> set[str]:
    """Return the arguments of a function, or what a class holds: the fields of a dataclass, the arguments of `__init__`."""
    if found.is_module:
        return set()
    if found.is_function:
        return {each.name for each in found.parameters} - {"self", "cls"}
    if found.is_class and "__init__" in found.functions:
        return _arguments(found.functions["__init__"])
    return {name for name, each in found.attributes.items() if not {"property", "module"} & each.labels}


def _described(found: griffe.Object) -> set[str]:
    parts = found.docstring.parse("google") if found.docstring else []
    listed = [each for each in parts if each.kind.value in ("parameters", "attributes")]
    return {each.name.lstrip("*") for part in listed for each in part.value}


def _is_note(part: griffe.DocstringSection) -> bool:
    return part.kind is griffe.DocstringSectionKind.admonition


def _documented(found: griffe.Object) -> Iterator[Any]:
    if found.docstring is not None:
        yield found
    for member in found.members.values():
        if isinstance(member, griffe.Object):
            yield from _documented(member)
