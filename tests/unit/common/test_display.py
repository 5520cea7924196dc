"""Results at a prompt and in a notebook."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warmkit
from tests.conftest import Family, make_family
from tests.unit.training import tiny
from warmkit.common.display import Displayed
from warmkit.evaluation.accuracy import Scores

LONGEST = 600  # characters of a line


class Cells(HTMLParser):
    """The tags and the texts of a table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.texts = set[str](), list[str](), list[str]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the calls return, of models whose folder is called like markup."""
    folder = tmp_path_factory.mktemp("results") / "<b>a & co"
    family = make_family(folder)
    init, models = family.init, family.models
    adapter = warmkit.extract_lora(family.a, folder / "adapter", init=init, rank=2, targets=["attn"])
    merged = warmkit.merge(models, folder / "merged", init=init, eta=0.3)
    comparison = warmkit.compare(models, init=init)
    checkpoint = warmkit.open_checkpoint(family.a)
    return {
        "merge": merged,
        "group": merged.groups[0],
        "sweep": warmkit.liti(family.a, folder / "sweep", init=init, eta=[0.3, 0.6]),
        "plan": warmkit.merge(models, folder / "plan", init=init, method="ties", dry_run=True, estimate=True),
        "greedy soup": warmkit.greedy_soup(models, folder / "soup", score="echo {} > /dev/null; echo 1"),
        "comparison": comparison,
        "compared group": comparison.groups[0],
        "verified": warmkit.verify(folder / "merged"),
        "adapter": adapter,
        "checkpoint": checkpoint,
        "tensor": checkpoint["lm_head.weight"],
        "merger": warmkit.Merger(models, init=init, granularity="model"),
        "layers": warmkit.LayerRange(family.a, 0, 3),
        "slice": warmkit.Slice((warmkit.LayerRange(family.a, 0, 3),)),
        "pair": warmkit.Pair("<b>Why?", "Because.\n" * 1000, [{"role": "assistant", "content": None}]),
        "method": warmkit.METHODS["ties"],
        "scores": Scores(np.zeros(10_000), np.zeros(10_000)),
    }


def test_a_line_is_short_and_one_line(results: dict[str, Any]) -> None:
    for name, each in results.items():
        assert isinstance(each, Displayed), name
        assert len(repr(each).replace(str(results["checkpoint"].path.parent), "")) < LONGEST, name
        assert repr(each).isprintable(), name


def test_a_table_shows_names_as_text_and_closes_its_tags(results: dict[str, Any]) -> None:
    for name, each in results.items():
        page = Cells(each._repr_html_())
        assert page.tags <= {"table", "tr", "th", "td", "p"}, name
        assert page.open == [], name
    assert str(results["merge"].path) in Cells(results["merge"]._repr_html_()).texts


def test_a_line_tells_what_was_merged_and_how(results: dict[str, Any]) -> None:
    merged, folder = results["merge"], results["merge"].path.parent
    angle = f"{merged.mean_angle:.1f} degrees"
    assert f"path: {folder}/merged, method: slerp, eta: 0.3" in repr(merged)
    assert angle in repr(merged)
    assert "parameters: 1.4 K" in repr(merged)
    assert "etas: [0.3, 0.6], coefficients at eta 0.3: [0.7, 0.3]" in repr(results["sweep"])
    assert "would write: 6.8 kB" in repr(results["plan"])
    assert f"init: {folder}/sft, models: [{folder}/a, {folder}/b, {folder}/c]" in repr(results["merger"])
    assert "architecture: LlamaForCausalLM, tensors: 12, parameters: 1.4 K, types: float32, size: 5.8 kB" in repr(
        results["checkpoint"]
    )
    assert "name: lm_head.weight, dtype: float32, shape: [40, 8], size: 1.3 kB" in repr(results["tensor"])
    assert repr(results["scores"]) == "<Scores chosen: float64 [10000], rejected: float64 [10000]>"


def test_a_table_has_a_row_for_every_group_and_says_how_many_are_left_out(results: dict[str, Any]) -> None:
    texts = Cells(results["merge"]._repr_html_()).texts
    assert {group.name for group in results["merge"].groups} <= set(texts)
    pairs = warmkit.read_pairs(_pairs(Path(results["checkpoint"].path.parent), 25))
    assert "and 15 more" in Cells(pairs._repr_html_()).texts
    assert repr(pairs) == "<Pairs pairs: 25, skipped: 0, corrupt: 0>"


def _pairs(folder: Path, count: int) -> Path:
    tiny.write(folder / "pairs.jsonl", tiny.rows(count, 0))
    return folder / "pairs.jsonl"


def test_nothing_shows_the_signature_of_an_address_or_obeys_an_escape(family: Family) -> None:
    signed = warmkit.LayerRange("https://user:word@host/model?X-Signature=abc", 0, 3)
    cut = warmkit.Slice((signed,), coefficients=[1.0])
    escape = warmkit.Pair("\x1b[31mred", "https://host/a?sig=abc", "b")
    for each in (signed, cut, escape):
        for text in (repr(each), each._repr_html_()):
            assert "abc" not in text
            assert "word" not in text
            assert "\x1b" not in text
    assert "https://host/model" in repr(signed)


def test_a_reward_model_tells_its_size_and_the_longest_text(tmp_path: Path) -> None:
    model = warmkit.load_reward_model(tiny.make(tmp_path / "init", "llama"), device="cpu")
    count = sum(each.numel() for each in model.model.parameters())
    assert f"path: {tmp_path}/init, architecture: LlamaForSequenceClassification, parameters: " in repr(model)
    assert f"{count / 1000:.1f} K" in repr(model)
    assert f"longest text: {model.encoder.max_length:,} tokens, device: cpu" in repr(model)


def test_a_checkpoint_whose_config_was_damaged_since_is_displayed_too(family: Family) -> None:
    checkpoint = warmkit.open_checkpoint(family.a)
    (family.a / "config.json").write_text("{")
    assert "architecture: unknown, config.json cannot be read, tensors: 12" in repr(checkpoint)


def test_every_public_call_returns_what_can_be_looked_at() -> None:
    for name in {*warmkit.__all__} - {"METHODS", "__version__", "run_warm", "run_warp"}:
        public = getattr(warmkit, name)
        if not isinstance(public, type):
            public = getattr(sys.modules[public.__module__], public.__annotations__["return"], dict)  # of tensors
        assert issubclass(public, Displayed | Exception | dict), name
