"""Every block of shell and Python on a page of the documentation runs as it stands, in the order of the page.

The blocks of a page run in one folder, which has tiny models, adapters and data of the names that pages use
(`tests/docs/reader.py`).
A block whose title is the name of a file is written there. One whose title begins with `needs` or `takes` is shown only.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests import forks
from tests.conftest import Run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {DOCS / "reproduction.md"}
PAGES = [each for each in sorted(DOCS.rglob("*.md")) if each not in GENERATED]
BLOCK = re.compile(r'^```(\S*)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SHOWN_ONLY = ("needs ", "takes ", "runs until ")
NEVER_RUN = {"text", "math"}


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str
    line: int

    def as_shell(self) -> str:
        """Return lines of a shell that do what a reader does with the block."""
        if self.language in NEVER_RUN or self.title.startswith(SHOWN_ONLY):
            return ""
        if self.title:
            return self._written(self.title)
        if self.language == "python":
            return self._written(f"block-{self.line}.py") + f"python block-{self.line}.py\n"
        return self.text if self.language == "sh" else ""

    def _written(self, name: str) -> str:
        return f"mkdir -p $(dirname {name})\ncat > {name} <<'END_OF_BLOCK'\n{self.text}END_OF_BLOCK\n"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        language, title, inside = found.groups()
        yield Block(language, title or "", inside, text[: found.start()].count("\n") + 1)


def page_as_shell(page: Path) -> str:
    return "".join(f"echo '@ line {block.line}' >&2\n{shell}" for block in blocks(page) if (shell := block.as_shell()))


RUN = {page: text for page in PAGES if (text := page_as_shell(page))}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    done = forks.run([sys.executable, "-m", "tests.docs.reader", str(folder)], text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def test_most_pages_have_blocks_that_run() -> None:
    assert len(RUN) >= 35


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(DOCS)))
def test_blocks_run_in_the_order_of_the_page(page: Path, models: Path, script: Run, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(models, folder, copy_function=os.link)  # nothing changes an input in place
    done = script(RUN[page], cwd=folder)
    there = f"a page may use what tests/docs/reader.py makes: {', '.join(sorted(each.name for each in models.iterdir()))}"
    assert done.returncode == 0, f"{done.stderr[-3000:]}{done.stdout[-1000:]}\n{there}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_block_says_what_it_is(page: Path) -> None:
    assert page.read_text("utf-8").count("\n```") == 2 * len(list(blocks(page))), "a fence has another form than those above"
    for block in blocks(page):
        assert block.language in {"sh", "python", "yaml", *NEVER_RUN}, f"line {block.line}: which language?"
        if block.language == "yaml":
            assert all(each is not None for each in yaml.safe_load_all(block.text))
        shown = block.title.startswith(SHOWN_ONLY)
        assert shown or not block.title or re.fullmatch(r"[\w./-]+\.(py|yaml)", block.title), block.title
