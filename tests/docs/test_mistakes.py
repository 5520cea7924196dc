"""Every mistake of the page gets a message that names what is wrong and what to do, and the page says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.mistakes import SECTIONS, Answer, Mistake, answers, page

ROOT = Path(__file__).parents[2]
MISTAKES = [each for section in SECTIONS.values() for each in section]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[Mistake, Answer]:
    return answers(tmp_path_factory.mktemp("mistakes").resolve())


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each.typed)
def test_a_mistake_is_named_with_its_cure(mistake: Mistake, found: dict[Mistake, Answer]) -> None:
    answer = found[mistake]
    assert answer.code in (1, 2), answer
    assert answer.out == ""
    assert answer.said.startswith("error: ")
    assert mistake.found in answer.said
    assert mistake.cure in answer.said
    assert "Traceback" not in answer.said


def test_the_page_of_mistakes_is_what_the_commands_say(found: dict[Mistake, Answer]) -> None:
    assert (ROOT / "docs" / "mistakes.md").read_text() == page(found), "run: python -m tests.docs.mistakes > docs/mistakes.md"


def test_there_are_many_kinds_of_mistakes() -> None:
    assert len({each.typed for each in MISTAKES}) == len(MISTAKES) >= 67
