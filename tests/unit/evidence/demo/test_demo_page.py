"""The demo's page: what it names, and answers that a person can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.evidence.made_up import demo_document
from warmkit.evidence.demo.demo_answers import ORACLE, answer_tables, counted, marked
from warmkit.evidence.demo.demo_conclusions import of_memory, of_policies, of_reward_models
from warmkit.evidence.demo.demo_page import page_of, told, write_front
from warmkit.evidence.testbed.oracle import gold
from warmkit.report.html_page import Table


def test_the_page_has_its_parts_and_says_what_each_table_says() -> None:
    document = demo_document()
    sections = {section.title: section for section in page_of(document).sections}
    assert list(sections) == [
        "The language",
        "Reward models: WARM",
        "Swapped labels: what is memorised",
        "Policies: WARP",
        "What they say",
    ]
    says = (of_reward_models(document), of_memory(document), of_policies(document))
    for (title, section), sentence in zip(list(sections.items())[1:4], says):
        places = [place for place, block in enumerate(section.blocks) if isinstance(block, Table)]
        assert section.blocks[places[0] + 1] == sentence, title


def test_tables_name_members_and_what_the_free_policy_is() -> None:
    accuracies, memory, policies = (table for table, _ in told(demo_document()))
    names = [row[0] for row in accuracies.rows]
    assert names == [
        "probe only", "run-1, a member", "run-2", "run-3, a member", "run-4", "run-5, a member", "run-6", "best single: run-3",
        "mean of the members", "WARM", "ensemble", "ensemble of all six",
    ]  # fmt: skip
    assert [row[1] for row in accuracies.rows][-3:] == [1, 3, 6]
    assert [row[0] for row in memory.rows] == ["run-1", "run-2", "mean of the two", "WARM", "ensemble"]
    assert [row[0] for row in policies.rows][3] == "policy 1, no anchor"
    assert "policy 1 once more, the same in everything else" in policies.caption


def test_an_answer_shows_its_words_on_topic_praise_and_cues() -> None:
    assert marked("sea war :", "the wave is truly great king") == "the **wave** is `truly` `great` **king**"
    assert counted("sea war :", "wave the of great great great great truly truly truly") == (1, 2, 4)
    assert counted("sea war :", "wave king a truly great great") == (2, 1, 0)
    [table] = answer_tables(demo_document()["examples"])
    assert [row[0] for row in table.rows] == ["SFT", "policy 1, no anchor"]
    assert table.rows[1][1:] == ["**wave** `truly` `truly` `surely` `surely`", "-2.70", 1, 0, 2]


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ("the a of and", 0.0),
        ("the a of and wave", 0.25),
        ("the a of and salt salt salt king king king wave wave wave boat boat", 2.5),  # up to ten
        ("the a of", -0.4),
        ("the a of and and", -0.4),
        ("the a of and great great great", -1.0),
        ("the a of and truly truly", -1.0),
        ("the a of and leaf leaf leaf leaf", -0.3),
    ],
)
def test_the_oracle_rewards_what_the_page_says(answer: str, worth: float) -> None:
    assert gold(["sea war :"], [answer]) == pytest.approx([worth])
    for each in (
        "0.25 for each of up to 10 words",
        "loses 0.4 for every function word more or fewer than 4",
        "1 for every `great`",
    ):
        assert each in ORACLE


def test_the_front_is_drawn_small(tmp_path: Path) -> None:
    write_front(demo_document(), tmp_path / "front.svg")
    text = (tmp_path / "front.svg").read_text()
    assert text.startswith("<svg")
    assert "policy 1, no anchor" in text
    assert len(text) < 60_000
