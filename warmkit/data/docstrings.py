"""The docstrings of installed packages: text by people that every machine has, read from source files without importing any.

PEP 257 asks for a summary line and then the rest, which makes a docstring a small TL;DR: `gather` gives the pairs.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import platform
import re
import sysconfig
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from warmkit.common.progress import Advance
from warmkit.errors import UsageError

STANDARD_LIBRARY = "stdlib"
SKIPPED = frozenset(("__pycache__", "idlelib", "lib2to3", "site-packages", "dist-packages", "test", "tests"))
TESTING = re.compile(r"(testing|_?test_.*|.*_tests?|conftest|benchmarks?|doctests?)(\.py)?")
BODY_WORDS, LEAST_BODY_WORDS = 60, 8
SUMMARY_WORDS = range(3, 21)

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)


@dataclass(frozen=True)
class Docstring:
    """A summary and what it sums up.

    Attributes:
        family: `stdlib`, or the package it is from.
        file: Source file, from the family down: `numpy/lib/_npyio_impl.py`.
        summary: The first line as one sentence: capital letter, full stop, no markup.
        body: Running text of the rest, 8 to 60 words, in one line, without markup; it does not repeat the summary.
    """

    family: str
    file: str
    summary: str
    body: str


# ---- source files ---------------------------------------------------------------------------------------------------


def sources(folder: Path) -> list[Path]:
    """Return the Python files of a package or of the standard library, sorted, without tests and other people's packages."""
    files: list[Path] = []
    for top in sorted(folder.iterdir()):
        if top.name not in SKIPPED:
            files += sorted(top.rglob("*.py")) if top.is_dir() else [top] * (top.suffix == ".py")
    return [path for path in files if SKIPPED.isdisjoint(path.relative_to(folder).parts)]


def module(path: Path, folder: Path) -> str:
    """Return the name of the top module of `folder` that a file belongs to."""
    return path.relative_to(folder).with_suffix("").parts[0]


def docstrings(path: Path) -> list[str]:
    """Return the docstrings of one file, outer ones first; none if it is no Python of this version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's escapes
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return []
    return [text for node in _statements(tree) if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node))]


def _statements(tree: ast.Module) -> Iterable[ast.AST]:
    """Yield what `ast.walk` does, in its order, without expressions, which hold no docstrings and most of the nodes."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        waiting.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, STATEMENTS))


def folder_of(family: str) -> Path:
    """Find the source files of a family.

    Raises:
        UsageError: If no such package is installed.
    """
    if family == STANDARD_LIBRARY:
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(family) if family.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"expected {STANDARD_LIBRARY!r} or an installed package, found {family!r}")
    return Path(spec.submodule_search_locations[0])


def version_of(family: str) -> str:
    """Return the version of the package that a family is, or of Python."""
    if family == STANDARD_LIBRARY:
        return platform.python_version()
    names = importlib.metadata.packages_distributions().get(family)
    return importlib.metadata.version(names[0]) if names else "unknown"


# ---- summaries and bodies -------------------------------------------------------------------------------------------


def gather(families: Sequence[str], files: int | None = None, advance: Advance | None = None) -> list[Docstring]:
    """Read the docstrings that are a summary line and running text.

    What says the same in lower-case words, in the summary or at the start of the body, is kept once, so that texts
    that differ in a name alone do not lie in two splits.

    Args:
        families: `stdlib` and installed packages, in the order that decides which of two equal texts is kept.
        files: Read of a family at most; None reads all.
        advance: Progress callback.

    Returns:
        The docstrings, by family, file and place in the file.

    Raises:
        UsageError: If a package is not installed.
    """
    folders = {family: folder_of(family) for family in families}
    paths = [(family, path) for family, folder in folders.items() for path in islice(_untested(folder), files)]
    result: list[Docstring] = []
    seen: set[str] = set()
    for family, path in paths:
        file = f"{family}/{path.relative_to(folders[family]).as_posix()}"
        for summary, body in filter(None, map(split, docstrings(path))):
            keys = _key(summary), _key(body, 12)
            if seen.isdisjoint(keys):
                seen.update(keys)
                result.append(Docstring(family, file, summary, body))
        if advance:
            advance(1, len(paths))
    return result


def _untested(folder: Path) -> Iterable[Path]:
    return (path for path in sources(folder) if not any(map(TESTING.fullmatch, path.relative_to(folder).parts)))


def _key(text: str, words: int | None = None) -> str:
    plain = re.findall(r"(?<![\w.])[a-z]+(?![\w(])", text[:1].lower() + text[1:])
    return " ".join(plain[:words]) if len(plain) > 1 else text


MARKUP = re.compile(
    r":[\w:+-]+:`[~!]?([^`<]+?)(?:\s*<[^`>]*>)?`|``([^`]+)``|`([^`<]+?)(?:\s*<[^`>]*>)?`_{0,2}|\*\*(\w[^*]*)\*\*"
)
SENTENCE = re.compile(r"[A-Za-z][\w ,.'\"()/;:*-]*")
NO_SENTENCE = re.compile(r"\w\(|[.!?:;] |\w=|--|\bTODO\b|\.\.|\b(?:i\.e|e\.g)\b")
UNDERLINE = re.compile(r"([=~^*#\"'+-])\1{2,}")
PROSE_SECTIONS = frozenset(("explanation", "notes", "description", "details", "introduction", "overview", "algorithm"))
NOT_PROSE = re.compile(r"\s|\.\. |:\w|@\w|[-*+|=#>$] ?|\d+[.)] |\w+ *(--|:|=) |\w+( \w+)?:$|\w+\(")


def split(text: str) -> tuple[str, str] | None:
    r"""Split a docstring into its summary and the running text of its body.

    Returns:
        Both without markup; None if either is missing, too short, too long or no prose.

    Examples:
        >>> split("return the `name` of it\n\nNames are what people call things by, in most places.\n\n>>> name(1)")
        ('Return the name of it.', 'Names are what people call things by, in most places.')
    """
    first, _, rest = text.strip().partition("\n")
    if not first.endswith(".") and rest.partition("\n")[0].strip():
        return None  # the first line is no paragraph and no sentence
    summary, body = _sentence(first), " ".join(_prose(rest).split()[:BODY_WORDS])
    if summary is None or len(body.split()) < LEAST_BODY_WORDS or _repeats(body, summary) or not _is_english(body):
        return None
    return summary, body


def _plain(text: str) -> str:
    return " ".join(MARKUP.sub(lambda found: next(filter(None, found.groups())), text).split())


def _sentence(line: str) -> str | None:
    text = _plain(line).rstrip(".:;, ")
    if len(text.split()) not in SUMMARY_WORDS or not SENTENCE.fullmatch(text) or NO_SENTENCE.search(text):
        return None
    first = text.split()[0]
    return (text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text) + "."


def _prose(text: str) -> str:
    """Return the running text: no doctests, literal blocks, tables, lists and fields, and no NumPy sections of such."""
    kept: list[str] = []
    skipping = False
    for paragraph in re.split(r"\n\s*?\n", text.strip("\n")):
        lines = paragraph.strip("\n").splitlines()
        if len(lines) > 1 and UNDERLINE.fullmatch(lines[1].strip()):
            skipping = lines[0].strip().lower() not in PROSE_SECTIONS
            lines = lines[2:]
        if not skipping and lines and not any(line.startswith((">>>", "In [")) for line in lines):
            kept += [line for line in lines if not NOT_PROSE.match(line)]
    return _plain(" ".join(kept))


def _repeats(body: str, summary: str) -> bool:
    return summary.rstrip(".").lower() in body.lower()


def _is_english(body: str) -> bool:
    words = body.split()
    return sum(word.strip(".,;:()'\"").isalpha() for word in words) >= 0.75 * len(words)
