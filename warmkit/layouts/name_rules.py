"""Names of tensors on disk and in memory: what transformers 5 renames, stacks and joins when it loads an architecture.

The rules are a file, so that what is installed does not decide what a command writes. `tests/data/layouts/make_table.py` writes
it from transformers' own tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).with_name("name_rules.json")
EXPERT = "*"  # stands for the number of an expert


@dataclass(frozen=True)
class Scope:
    """The module whose tensors a rule is about, with or without the base model's name before it; None: all tensors."""

    module: str | None = None
    base: str = ""

    def split(self, name: str) -> tuple[str, str] | None:
        """Return a name's parts before and inside of the module, None if it is in another."""
        if self.module is None:
            return "", name
        inner, base = (f"{each}." if each else "" for each in (self.module, self.base))
        before = next((each for each in (base + inner, inner) if name.startswith(each)), None)
        return None if before is None else (before, name.removeprefix(before))


@dataclass(frozen=True)
class Renaming:
    """One rule: what is found is replaced once; a backslash and 1 stand for what a group found."""

    pattern: re.Pattern[str]
    target: str
    scope: Scope

    def __call__(self, name: str) -> str:
        parts = self.scope.split(name)
        found = parts and self.pattern.search(parts[1])
        if not parts or not found:
            return name
        target = self.target.replace(r"\1", found.group(1)) if r"\1" in self.target else self.target
        return parts[0] + parts[1].replace(found.group(0), target, 1)


@dataclass(frozen=True)
class Join:
    """Tensors on disk that are one tensor in memory, or one that is several there.

    Attributes:
        sources: Ends or parts of names on disk, in order, with `*` for an expert's number.
        targets: The same in memory.
        stacked: Whether there is a tensor for every expert on disk, and a stack of them in memory.
        along: Dimension in memory along which several sources, or targets, follow each other.
        alternating: Whether they take turns there, place by place.
        turned: Whether the last two dimensions are the other way round on disk; None where either way is around.
        scope: The tensors that it is about.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    stacked: bool = False
    along: int | None = None
    alternating: bool = False
    turned: bool | None = False
    scope: Scope = Scope()


# How mlx-lm keeps the experts of GPT-OSS, which transformers names alike everywhere.
_MLP = "mlp.experts."
GPT_OSS = (
    Join(
        (f"{_MLP}gate_proj.weight", f"{_MLP}up_proj.weight"), (f"{_MLP}gate_up_proj",), along=2, alternating=True, turned=True
    ),
    Join((f"{_MLP}gate_proj.bias", f"{_MLP}up_proj.bias"), (f"{_MLP}gate_up_proj_bias",), along=1, alternating=True),
    Join((f"{_MLP}down_proj.weight",), (f"{_MLP}down_proj",), turned=True),
    Join((f"{_MLP}down_proj.bias",), (f"{_MLP}down_proj_bias",)),
)


class InMemory(NamedTuple):
    """Where the numbers of a tensor on disk are in memory.

    Attributes:
        name: Of the tensor in memory; of several, with the first.
        join: How it gets there; None where it is that tensor.
        source: Its place among the sources of `join`.
        expert: Its number, where experts are stacked.
    """

    name: str
    join: Join | None = None
    source: int = 0
    expert: int | None = None


@dataclass(frozen=True)
class Rules:
    """Rules of an architecture.

    Attributes:
        load: Renamings on the way from disk to memory, in order.
        joins: What is joined after them.
        save: Renamings on the way back, in order.
    """

    load: tuple[Renaming, ...]
    joins: tuple[Join, ...]
    save: tuple[Renaming, ...]

    def in_memory(self, name: str) -> InMemory:
        """Return where a tensor on disk is in memory; names in memory stay as they are."""
        name = _renamed(name, self.load)
        for join in self.joins:
            parts = join.scope.split(name)
            for source, pattern in enumerate(map(_pattern, join.sources)):
                if parts and (found := pattern.search(parts[1])):
                    target = parts[0] + parts[1].replace(found.group(0), join.targets[0], 1)
                    return InMemory(target, join, source, int(found.group(1)) if join.stacked else None)
        return InMemory(name)

    def on_disk(self, name: str) -> tuple[Join, tuple[str, ...]] | tuple[None, tuple[str]]:
        """Return the names that a tensor in memory has on disk, one for every source or the one it is part of."""
        for join in self.joins:
            parts = join.scope.split(name)
            found = parts and next((each for each in map(_pattern, join.targets) if each.search(parts[1])), None)
            if parts and found:
                names = (parts[0] + found.sub(source.replace("\\", ""), parts[1], count=1) for source in join.sources)
                return join, tuple(_renamed(each, self.save) for each in names)
        return None, (_renamed(name, self.save),)


def rules_for(configs: Iterable[Mapping[str, Any]]) -> Rules:
    """Return the rules of the first architecture that a config names and the table knows; no rules if there is none."""
    table = _table()
    for config in configs:
        named = [*(config.get("architectures") or []), table["types"].get(config.get("model_type"))]
        if (known := next((each for each in named if each in table["architectures"]), None)) is not None:
            return _rules(table["architectures"][known])
        if config.get("model_type") == "gpt_oss":
            return Rules((), GPT_OSS, ())
    return Rules((), (), ())


def all_rules() -> Iterator[tuple[list[str], Rules]]:
    """Yield all rules, with the architectures that have them."""
    owners: dict[int, list[str]] = {}
    for name, number in _table()["architectures"].items():
        owners.setdefault(number, []).append(name)
    yield from ((names, _rules(number)) for number, names in owners.items())


@cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_bytes())


@cache
def _rules(number: int) -> Rules:
    said = _table()["rules"][number]
    load, save = (
        tuple(Renaming(re.compile(each[0]), each[1], Scope(*each[2:])) for each in said[way]) for way in ("load", "save")
    )
    joins = tuple(_join(*each) for each in said["join"])
    return Rules(load, (*joins, *_of_others(joins)), save)


def _join(sources: Sequence[str], targets: Sequence[str], steps: Sequence[str], *scope: str) -> Join:
    stacked, last = steps[0] == "MergeModulelist 0", steps[-1].split()
    along = int(last[1]) if last[0] in ("Concatenate", "Chunk") else None
    turned = None if last[0] == "Transpose" else False
    return Join(tuple(sources), tuple(targets), stacked, along, turned=turned, scope=Scope(*scope))


def _of_others(joins: Iterable[Join]) -> list[Join]:
    """Return how mlx-lm (`switch_mlp`) and vLLM (`w13_weight`) name the stacks of experts that these rules make."""
    found: list[Join] = []
    for each in joins:
        target = each.targets[0]
        if each.stacked and target.endswith("experts.gate_up_proj"):
            home = target.removesuffix("experts.gate_up_proj")
            halves = (f"{home}switch_mlp.gate_proj.weight", f"{home}switch_mlp.up_proj.weight")
            found += [Join(halves, (target,), along=1, scope=each.scope)]
            found += [Join((f"{home}experts.w13_weight",), (target,), scope=each.scope)]
        elif each.stacked and target.endswith("experts.down_proj"):
            home = target.removesuffix("experts.down_proj")
            found += [Join((f"{home}switch_mlp.down_proj.weight",), (target,), scope=each.scope)]
            found += [Join((f"{home}experts.w2_weight",), (target,), scope=each.scope)]
    return found


@cache
def _pattern(written: str) -> re.Pattern[str]:
    """Return what finds a source or target, whose dots stand for dots, up to the end of a part of a name."""
    plain = re.escape(written.replace("\\", "")).replace(re.escape(EXPERT), r"(\d+)")
    return re.compile(plain + (r"(?!\w)" if written[-1:].isalnum() else ""))


def _renamed(name: str, rules: Iterable[Renaming]) -> str:
    for rule in rules:
        name = rule(name)
    return name
