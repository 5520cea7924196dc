"""Kinds of directories that `reproduce` and `demo` leave, for the report to show."""

from __future__ import annotations

from pathlib import Path

from warmkit.report.html_page import literal
from warmkit.report.runs.open import Kind
from warmkit.report.runs.part import Part, read_document, short
from warmkit.report.runs.working import is_going

REPRODUCTION, DEMO = "reproduction.json", "demo.json"


def _reproduction(folder: Path) -> Part:
    """Report on a reproduction; it goes on while a process holds the lock of its folder."""
    from warmkit.evidence.reproduction.reproduction_page import page_of
    from warmkit.evidence.reproduction.results import read_documents, results

    page = page_of(results(read_documents(folder)))
    return Part("reproduction", page.title, f"{page.subtitle} `{literal(str(folder))}`", page.sections, not is_going(folder))


def _demo(folder: Path) -> Part:
    from warmkit.evidence.demo.demo_page import page_of

    page = page_of(read_document(folder / DEMO))
    return Part("demo", short(str(folder)), f"{page.title}: `{literal(str(folder))}`", page.sections)


EVIDENCE = (
    Kind("reproduction", lambda folder: (folder / REPRODUCTION).is_file(), _reproduction),
    Kind("demo", lambda folder: (folder / DEMO).is_file(), _demo),
)
