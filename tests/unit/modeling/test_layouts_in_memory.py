"""Models of two layouts are merged in memory, loaded, and answer as the mean of the two models in memory."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

import warmkit
from tests.cli.conftest import classifier
from tests.unit.modeling.test_weights import mixture
from tests.unit.training import tiny, toy
from warmkit.data.preferences import read_pairs
from warmkit.errors import MismatchError
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.comparisons import encode_pairs
from warmkit.evaluation.connectivity import connectivity
from warmkit.evaluation.front import open_mergers, sweep
from warmkit.evaluation.policies import EvaluationSettings, PolicyTrial
from warmkit.modeling.quiet import quiet
from warmkit.modeling.reward_model import load_scorer
from warmkit.modeling.weights import load_weights

FILES = Path(__file__).parents[2] / "data" / "layouts"
MODELS = sorted(folder.parent for folder in FILES.glob("*/memory"))
KINDS = (("4", "5"), ("5", "4"), ("memory", "4"), ("mlx", "5"))
PAIRS = [
    pytest.param(model / one, model / two, id=f"{model.name}-{one}-{two}")
    for model, (one, two) in itertools.product(MODELS, KINDS)
    if (model / one).is_dir()
]
TEXT = torch.tensor([[3, 4, 5, 10, 11]])


def loaded(folder: Path, home: Path | None = None) -> Any:
    """Load a model, of the architecture that a config names, its own by default."""
    import transformers

    kind = getattr(transformers, json.loads(((home or folder) / "config.json").read_text())["architectures"][0])
    with quiet():
        return kind.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()


def changed(source: Path, folder: Path) -> Path:
    """Copy a model with other numbers in its tensors."""
    shutil.copytree(source, folder)
    noise = np.random.default_rng(0)
    tensors = load_file(source / "model.safetensors")
    moved = {name: (value + 0.1 * noise.normal(size=value.shape)).astype(value.dtype) for name, value in tensors.items()}
    save_file(moved, folder / "model.safetensors", {"format": "pt"})
    return folder


def mean(one: Any, two: Any) -> dict[str, torch.Tensor]:
    other = two.state_dict()
    return {name: ((value.double() + other[name].double()) / 2).float() for name, value in one.state_dict().items()}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TEXT).logits


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_a_merge_in_memory_answers_as_the_mean_of_the_models(one: Path, two: Path, tmp_path: Path) -> None:
    """Every layout of a family holds the same numbers, so the mean is known whichever was given first."""
    other = changed(two, tmp_path / "other")
    plain, moved = loaded(one.parent / "5"), loaded(other, one.parent / "5")
    merged = copy.deepcopy(plain)
    expected = mean(plain, moved)
    for given in ([one, other], [plain.state_dict(), other], [one, moved.state_dict()]):
        load_weights(merged, warmkit.merged_state_dict(given, method="uniform"), "merge")
        for name, value in merged.state_dict().items():
            assert torch.equal(value, expected[name]), name
    plain.load_state_dict(expected)
    assert torch.equal(logits(merged), logits(plain))
    assert not torch.allclose(logits(merged), logits(moved), atol=1e-4)


def test_a_state_dict_given_first_says_the_names_of_the_result() -> None:
    home = FILES / "mixtral"
    inside = loaded(home / "5").state_dict()
    assert warmkit.merged_state_dict([inside, home / "4"], method="uniform").keys() == inside.keys()
    assert (
        warmkit.merged_state_dict([home / "4", inside], method="uniform").keys()
        == load_file(home / "4" / "model.safetensors").keys()
    )


def test_state_dicts_of_two_layouts_alone_are_refused_with_what_would_tell() -> None:
    home = FILES / "mixtral"
    inside, outside = (dict(each) for each in (loaded(home / "5").state_dict(), tensors(home / "5")))
    with pytest.raises(MismatchError, match=r"(?s)model 2 does not fit.*nearest is the layout 'canonical' of .*Mixtral"):
        warmkit.merged_state_dict([inside, outside], method="uniform")


def tensors(folder: Path) -> Mapping[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in load_file(folder / "model.safetensors").items()}


# ---- commands -------------------------------------------------------------------------------------------------------


def as_in_memory(source: Path, folder: Path, model: Any) -> Path:
    """Copy a model under the names, and in the stacks, that transformers has in memory."""
    shutil.copytree(source, folder)
    save_tensors({name: value.clone() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def test_lines_and_averages_of_reward_models_are_those_of_one_layout(tmp_path: Path) -> None:
    """What `lmc`, `eval rm` and `warm` score with."""
    a, b = (mixture(tmp_path / name, seed) for seed, name in enumerate("ab", 1))
    inside = as_in_memory(b, tmp_path / "inside", load_scorer(b).model)
    pairs = read_pairs(str(tiny.write(tmp_path / "pairs.jsonl", tiny.rows(20))))
    found = []
    for other in (b, inside):
        model = load_scorer(a)
        contest = Contest(model, {"pairs": encode_pairs(pairs, model.encoder)}, {"a": a, "b": other})
        found.append((connectivity(contest, "a", "b", [0.0, 0.3, 1.0]), contest.average(["a", "b"])["pairs"].chosen))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("kind", ["MixtralForCausalLM", "Qwen2VLForConditionalGeneration"])
def test_fronts_of_policies_are_those_of_one_layout(kind: str, tmp_path: Path) -> None:
    """What `front`, `eval policy` and `warp` evaluate."""
    init, a, b = (policy(tmp_path / name, kind, seed) for seed, name in enumerate(("init", "a", "b")))
    inside = as_in_memory(b, tmp_path / "inside", loaded(b))
    held_out = tiny.write(tmp_path / "held-out.jsonl", [{"prompt": text} for text in tiny.sentences(3)])
    trial = PolicyTrial(EvaluationSettings(str(held_out), [toy.E], sft=str(init), max_new_tokens=6))
    points = [
        sweep(trial.open(str(init)), open_mergers(str(init), [str(a), str(each)], ["slerp"])["slerp"], [0.0, 0.5])
        for each in (b, inside)
    ]
    assert points[0] == points[1]
    assert points[0][1].values["kl_sft"].value > 0


def policy(folder: Path, kind: str, seed: int) -> Path:
    """Write a tiny language model with a tokenizer: the same for seed 0, else with noise of its own."""
    import transformers

    classifier(folder, "llama", 0)  # for its tokenizer
    sizes: dict[str, Any] = {"vocab_size": len(tiny.tokenizer("llama")), "hidden_size": 16, "intermediate_size": 24}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 3}
    if kind.startswith("Qwen"):
        rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
        eyes = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1, "patch_size": 4}
        config = transformers.Qwen2VLConfig(text_config={**sizes, "rope_parameters": rope}, vision_config=eyes)
    else:
        config = transformers.MixtralConfig(**sizes, num_local_experts=2)
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config)
    own = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters() if seed else ():
            each.add_(0.05 * torch.randn(each.shape, generator=own))
    model.save_pretrained(folder)
    return folder
