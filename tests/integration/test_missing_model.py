"""A model that is not there is told by its whole name, whatever was to be done with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import warmkit
from tests.conftest import Family
from warmkit.errors import UsageError

ROOT = Path(__file__).parents[2]
CALLS = """
import json, sys
import warmkit

there, missing = sys.argv[1:]
calls = {
    "merge": lambda: warmkit.merge([there, missing], "out", init=there),
    "merge, init": lambda: warmkit.merge([there, there], "out", init=missing),
    "soup": lambda: warmkit.soup([there, missing], "out"),
    "liti": lambda: warmkit.liti(missing, "out", init=there, eta=0.5),
    "ema": lambda: warmkit.ema([there, missing], "out"),
    "greedy soup": lambda: warmkit.greedy_soup([there, missing], "out", score="echo {} 1"),
    "slices": lambda: warmkit.merge_slices([warmkit.Slice((warmkit.LayerRange(missing, 0, 1),))], "out"),
    "extract_lora": lambda: warmkit.extract_lora(missing, "out", init=there),
    "Merger": lambda: warmkit.Merger([there, missing], init=there),
    "merged_state_dict": lambda: warmkit.merged_state_dict([there, missing], init=there),
    "open_checkpoint": lambda: warmkit.open_checkpoint(missing),
    "compare": lambda: warmkit.compare([there, missing], init=there),
    "verify": lambda: warmkit.verify(missing),
    "push": lambda: warmkit.push(missing, "owner/name"),
    "load_reward_model": lambda: warmkit.load_reward_model(missing),
}
said = {}
for name, call in calls.items():
    try:
        call()
    except warmkit.WarmkitError as error:
        said[name] = str(error)
print(json.dumps({name: said.get(name) for name in calls}))
"""


@pytest.mark.parametrize("missing", ["runs/b", "../no/such/folder/b"], ids=["like a repository", "a path"])
def test_every_call_tells_a_missing_model_by_its_whole_name(missing: str, family: Family, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    (tmp_path / "runs").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CALLS, str(family.a), missing],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    for call, said in json.loads(done.stdout).items():
        assert said is not None, f"{call}: no error of ours"
        assert missing in said, call
        local_alone = call in ("verify", "push") or missing.startswith("..")
        assert local_alone or ("no local path" in said and "the Hub cannot be reached" in said), said
    assert not (tmp_path / "out").exists()


LISTS = {
    "merge": lambda models: warmkit.merge(models, "out"),
    "soup": lambda models: warmkit.soup(models, "out"),
    "ema": lambda models: warmkit.ema(models, "out"),
    "greedy soup": lambda models: warmkit.greedy_soup(models, "out", score="echo {} 1"),
    "compare": lambda models: warmkit.compare(models, init="SFT"),
    "Merger": warmkit.Merger,
}


@pytest.mark.parametrize("call", LISTS)
def test_one_model_in_place_of_a_list_is_told_by_its_whole_name_too(call: str) -> None:
    with pytest.raises(UsageError, match=r"expected a list of models, found 'runs/a'; write \['runs/a'\]"):
        LISTS[call]("runs/a")
    with pytest.raises(UsageError, match="expected a list of models, found one state dict"):
        LISTS[call]({"w": 1})
    with pytest.raises(UsageError, match="expected a list of models, found none"):
        LISTS[call]([])
