from __future__ import annotations

import ast
import sys
import sysconfig
from pathlib import Path

import pytest

from warmkit.data import docstrings as subject
from warmkit.data.docstrings import Docstring, docstrings, folder_of, gather, module, sources, split, version_of
from warmkit.errors import UsageError

LIBRARY = Path(sysconfig.get_path("stdlib"))
BODY = "Names are what people call things by, in most places."


@pytest.fixture(scope="module")
def some() -> list[Docstring]:
    return gather(("stdlib", "numpy"), files=60)


def test_a_gathered_docstring_is_a_sentence_and_8_to_60_words(some):
    assert len(some) > 100
    for each in some:
        assert 3 <= len(each.summary.split()) <= 20
        assert each.summary.endswith(".")
        assert not each.summary[0].islower()
        assert 8 <= len(each.body.split()) <= 60
        assert each.summary.rstrip(".").lower() not in each.body.lower()
        assert ">>>" not in each.body
        assert "\n" not in each.summary + each.body


def test_no_summary_or_body_comes_twice(some):
    assert len({each.summary for each in some}) == len({each.body for each in some}) == len(some)


def test_files_lie_in_their_family_and_are_no_tests(some):
    assert {each.family for each in some} == {"stdlib", "numpy"}
    for each in some:
        family, _, rest = each.file.partition("/")
        assert family == each.family
        assert (folder_of(family) / rest).is_file()
        assert not {"test", "tests", "testing"} & set(Path(rest).parts)


def test_gathering_twice_gives_the_same_and_reports_every_file():
    calls: list[tuple[int, int]] = []
    first = gather(("stdlib",), files=20, advance=lambda done, total: calls.append((done, total)))
    assert first == gather(("stdlib",), files=20)
    assert calls == [(1, 20)] * 20


def test_nothing_is_imported():
    before = set(sys.modules)
    gather(("stdlib",), files=40)
    assert set(sys.modules) == before


def test_texts_that_differ_in_a_name_alone_are_kept_once(tmp_path, monkeypatch):
    text = 'def f():\n    """Return the tokens of {0}.\n\n    These are what the tokenizer of {0} wrote into them.\n    """\n'
    for name in ("Bert", "Llama"):
        (tmp_path / f"{name}.py").write_text(text.format(name))
    monkeypatch.setattr(subject, "folder_of", lambda family: tmp_path)
    assert [each.summary for each in gather(("any",))] == ["Return the tokens of Bert."]


@pytest.mark.parametrize("family", ["no_such_package_of_this_name", "no such/name", "typing_extensions"])
def test_a_family_that_is_no_installed_package_is_refused_by_name(family):
    with pytest.raises(UsageError, match=f"expected 'stdlib' or an installed package, found '{family}'"):
        gather((family,))


def test_versions_are_those_of_the_distributions():
    import numpy

    assert version_of("numpy") == numpy.__version__
    assert version_of("stdlib") == sys.version.split()[0]
    assert version_of("no_such_package_of_this_name") == "unknown"


def test_statements_come_in_the_order_of_ast_walk():
    path = LIBRARY / "argparse.py"
    nodes = (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, subject.DOCUMENTED))
    assert docstrings(path) == [text for node in nodes if (text := ast.get_docstring(node))]


def test_a_file_that_is_no_python_has_no_docstrings(tmp_path):
    (tmp_path / "a.py").write_text("print 'two'")
    assert docstrings(tmp_path / "a.py") == []


def test_sources_are_sorted_and_leave_out_tests(tmp_path):
    for name in ("b/x.py", "b/tests/y.py", "a.py", "site-packages/z.py", "b/data.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = sources(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.py", "b/x.py"]
    assert [module(path, tmp_path) for path in found] == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "Return the name of it.",  # no body
        "Return the name of it.\n\nToo short a body.",
        f"Return it.\n\n{BODY}",  # two words
        f"{'word ' * 21}.\n\n{BODY}",
        f"Return the name\nof something else.\n\n{BODY}",  # the first line is half a sentence
        f"name(x) -> the name\n\n{BODY}",
        f"Return the name. It is short.\n\n{BODY}",
        f"Return the name of it.\n\n{BODY} This will return the name of it.",
        "Return the name of it.\n\nParameters\n----------\nx : array\n    The first of all the things that are named here.",
        "Return the name of it.\n\nArgs:\n    x: The first of all the things that are named here by somebody.",
        f"Return the name of it, i.e.\n{BODY}",
        "Return the name of it.\n\n>>> name(1)\nthe name of one as it was given by somebody before",
        "Return the name of it.\n\n:param x: the first of all the things that are named here by somebody.",
    ],
)
def test_what_is_no_summary_with_running_text_is_left_out(text):
    assert split(text) is None


@pytest.mark.parametrize(
    "text",
    [
        f"Return the name of it.\n\n{BODY}",
        f"return the name of it\n\n{BODY}",
        f"Return the ``name`` of `it`.\n{BODY}",
        f"Return the :attr:`name` of it:\n\n{BODY}\n\nArgs:\n    x: What is named.\n",
        f"Return the **name** of it.\n\nExplanation\n===========\n\n{BODY}\n\nExamples\n========\n\n>>> name(1)\n'one'",
        f"Return the name of it.\n\n{BODY}\n\n    literal = block\n\n- an item\n",
    ],
)
def test_markup_sections_doctests_and_blocks_are_dropped(text):
    assert split(text) == ("Return the name of it.", BODY)


def test_the_body_is_cut_to_60_words():
    parts = split("Return the name of it.\n\n" + "some word or other " * 30)
    assert parts is not None
    assert len(parts[1].split()) == 60
