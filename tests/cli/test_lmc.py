"""`warmkit lmc`: the line between two reward models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Call, Rewards, json_lines
from tests.unit.training import tiny


def correct(call: Call, model: object, pairs: Path) -> np.ndarray:
    rows = json_lines(call("score", model, "-i", pairs).stdout)
    return np.array([row["score_chosen"] >= row["score_rejected"] for row in rows])


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("other") / "other.jsonl", tiny.rows(30, seed=90))


def test_the_line_ends_in_the_models_and_passes_through_what_merge_writes(call: Call, rewards: Rewards, other: Path) -> None:
    a, b = rewards.llamas[:2]
    sets = ("--data", f"first={rewards.pairs}", "--data", f"second={other}")
    done = call("lmc", a, b, *sets, "--lambda", "0,0.3,1", "--plot", "lmc.png", "-o", "lmc.json", "--json")
    document = json.loads(done.stdout)
    assert document == json.loads(Path("lmc.json").read_text())
    call("merge", "--method", "lerp", "--lambda", 0.3, a, b, "-o", "merged")
    for name, pairs in (("first", rewards.pairs), ("second", other)):
        start, middle, end = (point for point in document["points"] if point["data"] == name)
        ends = [correct(call, each, pairs).mean() for each in (a, b)]
        assert start["wa"] == start["ens"] == start["diagonal"] == ends[0]
        assert end["wa"] == end["ens"] == end["diagonal"] == ends[1]
        assert middle["wa"] == correct(call, "merged", pairs).mean()
        assert middle["diagonal"] == pytest.approx(0.7 * ends[0] + 0.3 * ends[1])
        gain = middle["wa_less_diagonal"]
        assert gain["value"] == pytest.approx(middle["wa"] - middle["diagonal"])
        assert gain["low"] <= gain["value"] <= gain["high"]
        assert start["wa_less_diagonal"] == {"value": 0, "low": 0, "high": 0}
    picture = Path("lmc.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert 20_000 < len(picture) < 500_000


def test_the_table_has_a_row_a_point(call: Call, rewards: Rewards) -> None:
    shown = call("lmc", *rewards.berts, "--data", rewards.pairs, "--points", 3).stdout
    rows = [line.split() for line in shown.splitlines() if line.strip().startswith("pairs")]
    assert [row[1] for row in rows] == ["0", "0.5", "1"]
    assert "WA less diagonal" in shown


def test_what_cannot_be_asked_is_refused(call: Call, rewards: Rewards) -> None:
    a, b, data = rewards.llamas[0], rewards.llamas[1], ("--data", rewards.pairs)
    for arguments, said in (
        ((a, b, *data, "--lambda", "0,2"), "expected numbers from 0 to 1, found 2"),
        ((a, b, *data, "--lambda", "nan"), "expected numbers from 0 to 1"),
        ((a, b, *data, "--lambda", "x"), "--lambda: expected numbers with commas"),
        ((a, b, *data, "--lambda", "0", "--points", 3), "give one"),
        ((a, b, *data, "--plot", "x.docx"), "expected a picture"),
        ((a, a, *data), "twice"),
    ):
        assert said in call("lmc", *arguments, code=2).stderr
    Path("there.json").write_text("{}")
    assert "already exists" in call("lmc", a, b, *data, "-o", "there.json", code=1).stderr
    assert "does not fit" in call("lmc", a, rewards.berts[0], *data, code=1).stderr
