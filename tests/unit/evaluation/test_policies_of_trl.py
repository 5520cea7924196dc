"""Policies that TRL 1.16 trained are read, sampled, measured and merged as transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import warmkit
from tests.unit.training import tiny
from warmkit.common.random_streams import generator
from warmkit.evaluation.front import open_mergers, sweep
from warmkit.evaluation.policies import Candidate, EvaluationSettings, PolicyTrial
from warmkit.evaluation.policy_evaluator import Rollout, rollout_values
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.modeling.generation import Completion
from warmkit.training.policy_recipe import PolicyModelSection, PolicySection, PromptsSection
from warmkit.training.recipe_sections import RunOutput
from warmkit.training.warp_recipe import WarpRecipe, WarpSection

transformers = pytest.importorskip("transformers")

MADE = Path(__file__).parents[2] / "data" / "trl_policies"
SFT, A, B = (str(MADE / name) for name in ("sft", "a", "b"))
LENGTH = RewardTerm(function="tests.unit.training.toy:length")
MOST = 12


def said(path: str) -> list[dict[str, Any]]:
    """Return what transformers said of a policy: prompts, ids, greedy completions, log-probabilities."""
    return json.loads((Path(path) / "said.json").read_text())


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    return str(tiny.write(tmp_path / "prompts.jsonl", [{"prompt": row["prompt"]} for row in said(SFT)]))


def opened(path: str, prompts: str, temperature: float = 1.0, **how: Any) -> Candidate:
    settings = EvaluationSettings(prompts, [LENGTH], sft=SFT, temperature=temperature, max_new_tokens=MOST, **how)
    return PolicyTrial(settings).open(path)


def rollout(path: str) -> Rollout:
    """Return the completions that transformers was asked about."""
    rows = said(path)
    completions = [Completion(row["completion"], row["completion"][-1] in (0, 2)) for row in rows]
    return Rollout([row["ids"] for row in rows], completions, [], torch.zeros(len(rows)), {})


def log_probabilities(candidate: Candidate, path: str) -> list[float]:
    with torch.no_grad():
        return candidate.evaluator.measure(rollout(path), slice(None), {})["policy"].tolist()


def by_transformers(path: str | Path, ids: list[int], completion: list[int]) -> float:
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        spoken = model(torch.tensor([ids + completion])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    return float(spoken.gather(1, torch.tensor(completion)[:, None]).sum())


@pytest.mark.parametrize("path", [SFT, A, B])
def test_prompts_ends_greedy_completions_and_log_probabilities_are_those_of_transformers(path: str, prompts: str) -> None:
    candidate, rows = opened(path, prompts), said(path)
    assert candidate.data.ids == [row["ids"] for row in rows]
    assert candidate.ends == ["<|im_end|>", "<|endoftext|>"]
    assert log_probabilities(candidate, path) == pytest.approx([row["log_probability"] for row in rows], abs=1e-5, rel=1e-5)
    cold = opened(path, prompts, temperature=1e-3)
    found, texts = cold.evaluator.complete(cold.data.ids, 1, generator("evaluation samples", 0))
    assert [each.ids for each in found] == [row["completion"] for row in rows]
    assert any(each.ended for each in found)
    own = transformers.AutoTokenizer.from_pretrained(path)
    assert texts == [own.decode(row["completion"], skip_special_tokens=True) for row in rows]
    assert cold.answers().texts == [[text] for text in texts], "what eval policy shows"


def test_the_kl_that_eval_policy_reports_is_that_of_transformers_log_probabilities(prompts: str) -> None:
    candidate = opened(A, prompts, samples=2)
    sampled = candidate.evaluator.roll_out(candidate.data, range(12), 2, generator("evaluation samples", 0))
    pairs = [(ids, each.ids) for ids, each in zip(sampled.prompts, sampled.completions)]
    expected = [by_transformers(A, *each) - by_transformers(SFT, *each) for each in pairs]
    with torch.no_grad():
        sft = {"sft": PolicyTrial(candidate.settings).sft}
        values = rollout_values(sampled, candidate.evaluator.measure(sampled, slice(None), sft))
    assert values["kl_sft_sampled"].tolist() == pytest.approx(expected, abs=2e-5)
    assert candidate.answers().values["kl_sft_sampled"].mean() == pytest.approx(sum(expected) / len(expected), abs=2e-5)


def test_a_front_passes_through_the_policies_and_the_merge_that_transformers_loads(prompts: str, tmp_path: Path) -> None:
    candidate = opened(SFT, prompts)
    merger = open_mergers(SFT, [A, B], ["slerp"])["slerp"]
    alone = open_mergers(SFT, [A], ["lerp"])["lerp"]
    for eta, path in ((0.0, SFT), (1.0, A)):
        candidate.load_weights(alone.state_dict(eta=eta))
        expected = [row["log_probability"] for row in said(path)]
        assert log_probabilities(candidate, path) == pytest.approx(expected, abs=1e-5, rel=1e-5)
    candidate.load_weights(merger.state_dict(eta=1.0))
    warmkit.merge([A, B], tmp_path / "merged", init=SFT, method="slerp")
    expected = [by_transformers(tmp_path / "merged", row["ids"], row["completion"]) for row in said(A)]
    assert log_probabilities(candidate, A) == pytest.approx(expected, abs=2e-5)
    points = sweep(opened(SFT, prompts), alone, [0.0, 1.0])
    for point, path in zip(points, (SFT, A)):
        answers = opened(path, prompts).answers()
        assert point.values["reward"].value == pytest.approx(answers.values["reward"].mean())
        assert point.values["kl_sft"].value == pytest.approx(answers.values["kl_sft"].mean(), abs=1e-5)


def test_warp_merges_them_into_a_policy_that_says_the_same_in_transformers(prompts: str, tmp_path: Path) -> None:
    recipe = WarpRecipe(
        PolicyModelSection(SFT),
        PromptsSection(prompts, prompts),
        [LENGTH],
        RunOutput(str(tmp_path / "warp")),
        PolicySection(steps=1, warmup=0, temperature=1.0, max_new_tokens=MOST, precision="float32"),
        WarpSection(iterations=1, policies=[A, B], etas=[0.0, 1.0], jobs=1),
    )
    result = warmkit.run_warp(recipe)
    first, last = result.summary["front"]
    assert first["values"]["kl_sft"]["value"] == pytest.approx(0, abs=1e-6)
    answers = opened(str(result.path), prompts).answers()
    assert last["values"]["kl_sft"]["value"] == pytest.approx(answers.values["kl_sft"].mean(), abs=1e-5)
    cold = opened(str(result.path), prompts, temperature=1e-3)
    found, _ = cold.evaluator.complete(cold.data.ids, 1, generator("evaluation samples", 0))
    model = transformers.AutoModelForCausalLM.from_pretrained(result.path).eval()
    for ids, each in zip(cold.data.ids, found):
        whole = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=MOST)
        assert whole[0, len(ids) :].tolist() == each.ids
