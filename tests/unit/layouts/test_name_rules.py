"""The table of names says what transformers says, and its rules undo each other."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from warmkit.layouts.name_rules import TABLE, Rules, rules_for

DATA = Path(__file__).parents[2] / "data" / "layouts"
ARCHITECTURES = json.loads(TABLE.read_bytes())["architectures"]
SOME = (
    "MixtralForCausalLM",
    "LlavaForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration",
)


def rules(name: str) -> Rules:
    return rules_for([{"architectures": [name]}])


@pytest.mark.parametrize("name", SOME)
def test_the_table_is_made_of_transformers_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DATA))
    make_table = importlib.import_module("make_table")
    found = make_table.conversions.get_model_conversion_mapping(small(name), add_legacy=False)
    assert make_table.rules_of(found) == json.loads(TABLE.read_bytes())["rules"][ARCHITECTURES[name]]


def small(name: str) -> Any:
    """Return a tiny model of an architecture, without weights."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    folder = next(path for path in DATA.glob("*/5") if name in (path / "config.json").read_text())
    with torch.device("meta"):
        return getattr(transformers, name)(transformers.AutoConfig.from_pretrained(folder))


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_names_in_memory_stay_and_come_back_from_disk(name: str) -> None:
    known = rules(name)
    for join in known.joins:
        if not join.stacked:
            continue
        module = ["model"] if join.scope.module is None else [join.scope.base, join.scope.module]
        target = join.targets[0].replace("\\", "").lstrip(".")
        inside = known.in_memory(".".join([*filter(None, module), "layers.0", target])).name
        again, names = known.on_disk(inside)
        assert again is not None
        assert (again.sources, again.targets) == (join.sources, join.targets)
        assert [known.in_memory(each.replace("*", "7")).name for each in names] == [inside] * len(names)
        assert [known.in_memory(each.replace("*", "7")).expert for each in names] == [7] * len(names)
        assert known.in_memory(inside).name == inside
