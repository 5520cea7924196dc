"""The page about error messages names messages that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MESSAGES = re.findall(
    r"`([^`]+)`", "\n".join(re.findall(r"^### (.*)", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M))
)
HOLE = "\0"


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield every text of a module, with a hole for each value in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(each.value) if isinstance(each, ast.Constant) else HOLE for each in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for file in (ROOT / "warmkit").rglob("*.py") for text in strings(ast.parse(file.read_text("utf-8")))]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_one_of_the_code(message: str, texts: list[str]) -> None:
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in message.split("…")), re.DOTALL)
    assert any(pattern.search(text) for text in texts), message


def test_the_page_has_messages() -> None:
    assert len(MESSAGES) >= 50
