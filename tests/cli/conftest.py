"""Tiny reward models of real architectures, made once, and preferences to score with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from tests.unit.training import tiny


@dataclass(frozen=True)
class Rewards:
    """Reward models.

    Attributes:
        llamas: Three, fine-tuned from one (noise around it).
        probe: What they were fine-tuned from.
        berts: Two.
        pairs: Preferences with subsets, some marked as corrupt.
        rows: The same, as written.
    """

    llamas: list[Path]
    probe: Path
    berts: list[Path]
    pairs: Path
    rows: list[dict[str, Any]]


@pytest.fixture(scope="session")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Rewards:
    folder = tmp_path_factory.mktemp("rewards")
    rows = [{**row, "subset": "odd" if n % 2 else "even", "corrupt": n < 4} for n, row in enumerate(tiny.rows(20))]
    probe, *llamas = [classifier(folder / f"llama-{seed}" / "model", "llama", seed) for seed in range(4)]
    berts = [classifier(folder / f"bert-{seed}", "bert", seed) for seed in range(2)]
    return Rewards(llamas, probe, berts, tiny.write(folder / "pairs.jsonl", rows), rows)


def classifier(folder: Path, architecture: str, seed: int, scale: float = 0.05) -> Path:
    """Write a scalar classifier: the base for seed 0, else the base plus noise of its own."""
    from transformers import AutoModelForSequenceClassification

    tokenizer = tiny.tokenizer(architecture)
    torch.manual_seed(7)
    made = tiny.config(architecture, len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, initializer_range=0.2)
    model = AutoModelForSequenceClassification.from_config(made)
    own = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters() if seed else ():
            each.add_(scale * torch.randn(each.shape, generator=own))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


Call = Callable[..., Result]


def invoke(*arguments: object, code: int = 0) -> Result:
    """Run a command in this process, which has imported transformers already."""
    from warmkit.cli.app import app

    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `warmkit ARGS` in this process, in the temporary directory: loading torch takes longer than a test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    return invoke


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
