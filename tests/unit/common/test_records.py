"""Files that warmkit writes for itself are read in their own form, or refused in a line that names them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.training import tiny, toy
from warmkit.common.records import (
    checked,
    dict_of,
    either,
    having,
    is_natural,
    is_number,
    is_text,
    list_of,
    maybe,
    parsed,
    read_record,
)
from warmkit.engine.staging import read_journal
from warmkit.errors import CheckpointError, FormatError, WarmkitError
from warmkit.evaluation.front import trajectory
from warmkit.evidence.demo.demo import run_demos
from warmkit.evidence.reproduction.seed_file import read_seed
from warmkit.evidence.testbed.made_once import Products
from warmkit.pipelines.merge_parts import follow_order
from warmkit.pipelines.steps import MERGED, Steps
from warmkit.report.runs.part import read_document
from warmkit.training.policy import SUMMARY as OF_POLICIES
from warmkit.training.policy import train_policy
from warmkit.training.recipe_sections import SftRecipe
from warmkit.training.reward_modeling import SUMMARY as OF_REWARD_MODELS
from warmkit.training.reward_modeling import train_reward_model
from warmkit.training.run import RunDirectory
from warmkit.training.sft import SUMMARY as OF_SFT
from warmkit.training.sft import train_sft
from warmkit.verbs.greedy_soup import greedy_soup

DAMAGED = (b"", b"\xff\xfe", b"{", b"null", b"3", b"[]", b'"x"', b"[" * 100_000, b'{"a": "' + b"x" * 5000)
"""What no reader of an object takes."""


def refused(read: Callable[[], Any], file: Path) -> str:
    """Return the one line in which a file is refused by name."""
    with pytest.raises(WarmkitError) as error:
        read()
    said = str(error.value)
    assert str(file) in said
    assert "\n" not in said
    assert len(said) < 600
    return said


# ---- forms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "takes", "refuses"),
    [
        (is_text, ["", "a"], [None, 1, []]),
        (is_number, [0, 1.5, float("inf")], [True, "1", None]),
        (is_natural, [0, 7], [-1, 1.0, True, "1"]),
        (maybe(is_text), [None, "a"], [1]),
        (list_of(is_text), [[], ["a"]], [["a", 1], "a", {}, None]),
        (dict_of(is_natural), [{}, {"a": 1}], [{"a": "1"}, [1], None]),
        (having(a=is_text, b=maybe(is_text)), [{"a": "x"}, {"a": "x", "c": 1}], [{}, {"b": "x"}, {"a": "x", "b": 1}, "a"]),
        (either(is_text, is_natural), ["a", 1], [1.5, None]),
    ],
)
def test_a_form_takes_what_it_says(form: Callable[[Any], bool], takes: list[Any], refuses: list[Any]) -> None:
    assert all(map(form, takes))
    assert not any(map(form, refuses))


def test_a_key_of_another_form_is_named() -> None:
    with pytest.raises(FormatError, match="place: steps is missing, or not what warmkit writes there; start again"):
        checked({"steps": "many"}, {"steps": is_natural}, "place", "start again")


def test_infinity_and_nan_are_what_metrics_may_hold() -> None:
    assert parsed(b'{"loss": Infinity}', "place") == {"loss": float("inf")}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"summary\.json: cannot be read"):
        read_record(tmp_path / "summary.json", {})


# ---- readers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [*DAMAGED, b"{}", b'{"steps": "many"}', b'{"steps": 1, "notes": 3}'])
@pytest.mark.parametrize("kind", ["rm", "sft", "policy"])
def test_a_summary_of_another_form(kind: str, content: bytes, tmp_path: Path) -> None:
    base = tiny.recipe(tmp_path)
    recipe, train = {
        "rm": (base, train_reward_model),
        "sft": (SftRecipe(base.model, base.data, base.output, tiny.as_sft(base.rm)), train_sft),
        "policy": (toy.recipe(tmp_path), train_policy),
    }[kind]
    file = Path(recipe.output.path) / "summary.json"
    from warmkit.training.run import open_run

    open_run(recipe, force=False)
    file.write_bytes(content)
    assert "delete" in refused(lambda: train(recipe), file)  # type: ignore[operator]


def test_what_runs_write_has_the_form_that_is_read(tmp_path: Path) -> None:
    base = tiny.recipe(tmp_path, steps=1, name="rm")
    chats = SftRecipe(base.model, base.data, tiny.recipe(tmp_path, name="sft").output, tiny.as_sft(base.rm))
    policy = toy.recipe(tmp_path, "policy", steps=1)
    for train, recipe, form in (
        (train_reward_model, base, OF_REWARD_MODELS),
        (train_sft, chats, OF_SFT),
        (train_policy, policy, OF_POLICIES),
    ):
        written = train(recipe).summary  # type: ignore[operator]
        assert checked(json.loads(json.dumps(written)), form, "summary.json")
        assert train(recipe).summary == json.loads(json.dumps(written)), "read again"  # type: ignore[operator]


@pytest.mark.parametrize("content", [*DAMAGED, b"PK\x03\x04" + b"0" * 200])
def test_a_state_of_another_form(content: bytes, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", "a: 1\n")
    (run.path / "state.pt").write_bytes(content)
    assert "delete it, and the run starts again" in refused(run.load_state, run.path / "state.pt")


@pytest.mark.parametrize("state", [{}, {"step": "x"}, {"step": 2}, {"step": 2, "model": {}, "optimizer": {}, "watch": {}}, [1]])
def test_a_state_of_another_run(state: Any, tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path)
    from warmkit.training.run import open_run

    run = open_run(recipe, force=False)
    run.save_state(state)
    del run
    refused(lambda: train_policy(recipe), tmp_path / "run" / "state.pt")


@pytest.mark.parametrize("line", [b"[1]", b"3", b'{"step": "2"}', b'{"step": 2, "warnings": 1}', b"{", b"\xff", b"[" * 100_000])
def test_lines_of_metrics_of_another_form_are_not_kept(line: bytes, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", "a: 1\n")
    (run.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b"\n")
    run.open_metrics(5)
    run.close()
    assert run.metrics() == [{"step": 1}]
    (run.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b"\n")
    refused(run.metrics, run.path / "metrics.jsonl")
    refused(lambda: trajectory(run.path), run.path / "metrics.jsonl")


@pytest.mark.parametrize(
    "content", [*DAMAGED, b"{}", b'{"inputs": 3, "result": {}}', b'{"inputs": {}, "result": {"path": 3, "eta": 1}}']
)
def test_a_manifest_of_a_step_of_another_form(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "merge.json").write_bytes(content)
    steps = Steps(tmp_path)
    said = refused(lambda: steps.take("merge", {}, lambda: pytest.fail("done again"), MERGED), tmp_path / "merge.json")
    assert said.endswith("delete it, and the step is taken again")


@pytest.mark.parametrize("content", [*DAMAGED, b'{"a": "1"}'])
def test_scores_of_a_greedy_soup_of_another_form(content: bytes, tmp_path: Path) -> None:
    models = [tiny.model("llama", tmp_path / name) for name in ("a", "b")]
    (tmp_path / ".out.warmkit-greedy").mkdir()
    file = tmp_path / ".out.warmkit-greedy" / "scores.json"
    file.write_bytes(content)
    refused(lambda: greedy_soup(models, tmp_path / "out", score="echo {} 1"), file)


@pytest.mark.parametrize("content", [*DAMAGED, b'{"models": [], "output": "x", "groups": 3}'])
def test_an_order_of_another_form(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_bytes(content)
    refused(lambda: follow_order(tmp_path / "part.yaml"), tmp_path / "part.yaml")


@pytest.mark.parametrize(
    "line", [*DAMAGED, b'{"group": "a", "gram": [[1], [1, 2]]}', b'{"tensor": "a", "inputs": 3}', b'{"group": 1}']
)
def test_a_journal_counts_up_to_a_line_of_another_form(line: bytes, tmp_path: Path) -> None:
    good = b'{"group": "a", "gram": [[1.0, 0.5], [0.5, 1.0]]}\n'
    (tmp_path / "journal").write_bytes(good + line + b"\n" + good.replace(b'"a"', b'"b"'))
    assert list(read_journal(tmp_path / "journal").grams) == ["a"]
    assert (tmp_path / "journal").read_bytes() == good


@pytest.mark.parametrize("content", DAMAGED)
def test_documents_of_reports_and_marks_of_another_form(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    file.write_bytes(content)
    refused(lambda: read_document(file), file)
    made = tmp_path / "made" / "a.json"
    made.parent.mkdir()
    made.write_bytes(content)
    refused(lambda: Products(tmp_path).once("a", lambda: None), made)


@pytest.mark.parametrize("content", DAMAGED)
def test_marks_of_seeds_of_another_form(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "setting.json").write_bytes(content)
    refused(lambda: run_demos({0: tmp_path}), tmp_path / "setting.json")
    (tmp_path / "seed-0.jsonl").write_bytes(content + b"\n{}")
    refused(lambda: read_seed(tmp_path / "seed-0.jsonl"), tmp_path / "seed-0.jsonl")


def test_scores_that_were_kept_of_another_form(tmp_path: Path) -> None:
    from warmkit.evaluation.averaging import load_scores

    file = tmp_path / "a.npz"
    for content in (b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"x" * 100):
        file.write_bytes(content)
        assert refused(lambda: load_scores(file, "", 2), file).endswith("delete it")
    for arrays in ({}, {"chosen": np.zeros(2)}, {"chosen": np.zeros(3), "rejected": np.zeros(3)}, {"chosen": np.array(["x"])}):
        np.savez(file, **arrays)  # type: ignore[arg-type]
        refused(lambda: load_scores(file, "", 2), file)
