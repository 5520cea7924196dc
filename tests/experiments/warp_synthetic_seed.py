"""One SFT seed of WARP's experiment: its models, its runs of RL, and what is measured of every policy."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file

from warmkit.checkpoints.merge import Merger
from warmkit.evaluation.policies import EvaluationSettings, PolicyTrial
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.testbed import language
from warmkit.testbed.oracle import simple_gold
from warmkit.testbed.pretraining import pretrain
from warmkit.training.policy import PolicyResult, train_policy
from warmkit.training.policy_recipe import PolicyModelSection, PolicyRecipe, PolicySection, PromptsSection
from warmkit.training.recipe import DataSection, ModelSection, Optimization, RewardModelRecipe, RunOutput
from warmkit.training.reward_modeling import train_reward_model

if TYPE_CHECKING:
    from collections.abc import Iterator

Weights = Mapping[str, torch.Tensor]
CONTROLS = ("gold", "relevant_words", "hype_words", "cue_words")


@dataclass(frozen=True)
class Setting:
    """How large the experiment is.

    Attributes:
        pretrain_steps: Of the SFT model.
        pairs: Preferences that the proxy learns from, a quarter of them swapped.
        proxy: Of its fine-tuning.
        steps: Of a run of RL, T.
        policy: Of every run of RL.
        ema: Strengths of the KL to the moving average; the first is that of all merged policies.
        static: Strengths of the KL to the SFT model.
        mu: Of the moving average.
        orders: Policies that differ in the order of prompts and the seed of sampling.
        iterations: Of WARP, with two policies each.
        eta: LITI's rate between them.
        watched: Points of a trajectory of T steps that are evaluated.
        etas: Of the fronts.
        lambdas: Between two policies.
        samples: Completions of each of 16 held-out prompts in every evaluation.
    """

    pretrain_steps: int = 2500
    pairs: int = 4000
    proxy: Mapping[str, Any] = field(default_factory=lambda: {"lr": 5e-4, "steps": 500, "batch_size": 16})
    steps: int = 300
    policy: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-3, "batch_size": 4, "samples": 2})
    ema: tuple[float, ...] = (1.0, 0.3, 3.0)
    static: tuple[float, ...] = (0.1, 0.3, 1.0)
    mu: float = 0.05
    orders: int = 5
    iterations: int = 3
    eta: float = 0.3
    watched: int = 12
    etas: tuple[float, ...] = (0.15, 0.25, 0.35, 0.45, 0.6, 0.8, 1.0, 1.2)
    lambdas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    samples: int = 128

    def steps_to_watch(self, runs: int = 1) -> list[int]:
        """Return the steps of a run of `runs` T that are evaluated: denser at the start, where the policy moves fastest."""
        shares = (np.arange(1, self.watched + 1) / self.watched) ** 1.7
        early = {max(1, round(self.steps * share)) for share in shares}
        return sorted(early | {self.steps * each // 2 for each in range(2, 2 * runs + 1)})


class Testbed:
    """One SFT seed: its models, its runs, and the points measured so far."""

    def __init__(self, folder: Path, seed: int, setting: Setting) -> None:
        self.folder, self.seed, self.setting = folder / f"seed-{seed}", seed, setting
        self.points: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self.files = self._write_data()
        with self.timed("pre-training"):
            [self.sft] = pretrain(self.folder / "sft", seed, setting.pretrain_steps, keep=[1.0])
        with self.timed("reward model"):
            self.proxy, self.proxy_report = self._train_proxy()
        self.candidate = self._trial().open(str(self.sft))
        self.sft_weights = load_file(self.sft / "model.safetensors")
        self.measure("sft", "sft", 0, self.sft_weights)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the seconds of a part, and say that it is done."""
        began = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began
        print(f"seed {self.seed}, {part}: {self.seconds[part]:.0f} s", file=sys.stderr, flush=True)

    # ---- models --------------------------------------------------------------------------------------------------------

    def _write_data(self) -> dict[str, str]:
        prompts = np.random.default_rng([self.seed, 3]).permutation(language.all_prompts()).tolist()
        rows = {
            "train": language.preferences(self.setting.pairs, self.seed, simple_gold),
            "validation": language.preferences(1000, self.seed + 100_000, simple_gold),
            "prompts": [{"prompt": each} for each in prompts[16:]],
            "held-out": [{"prompt": each} for each in prompts[:16]],
        }
        return {name: str(_write_rows(self.folder / f"{name}.jsonl", each)) for name, each in rows.items()}

    def _train_proxy(self) -> tuple[RewardTerm, dict[str, float]]:
        """Return the proxy in units of its deviation on texts of the language, and what is known about it."""
        recipe = RewardModelRecipe(
            ModelSection(str(self.sft)),
            DataSection(self.files["train"], self.files["validation"], corrupt=0.25, corrupt_seed=self.seed),
            RunOutput(str(self.folder / "proxy")),
            Optimization(**self.setting.proxy, seed=self.seed, order=self.seed),
        )
        result = train_reward_model(recipe)
        report = result.summary["evaluation"]["validation"]
        return RewardTerm(name="proxy", model=str(result.path), weight=1 / report["deviation"]), report

    def _trial(self) -> PolicyTrial:
        return PolicyTrial(
            EvaluationSettings(
                self.files["held-out"],
                [self.proxy],
                [control(name) for name in CONTROLS],
                sft=str(self.sft),
                samples=self.setting.samples,
                temperature=1.0,
                max_new_tokens=language.LENGTH,
                banned=language.UNSPOKEN,
                batch_size=1024,
            )
        )

    def rl(self, name: str, init: Path | None = None, runs: int = 1, order: int = 1, **how: Any) -> PolicyResult:
        """Train a policy for `runs` T steps, with the anchor and beta of the merged policies unless `how` says otherwise."""
        setting = self.setting
        settings: dict[str, Any] = {
            "baseline": "leave-one-out",
            "temperature": 1.0,
            "max_new_tokens": language.LENGTH,
            "banned": language.UNSPOKEN,
            "anchor": "ema",
            "beta": setting.ema[0],
            "mu": setting.mu,
            "steps": runs * setting.steps,
            "keep": setting.steps_to_watch(runs),
            "order": order,
            "seed": order,
            "save_every": 10_000,
        }
        with self.timed("RL"):
            return train_policy(
                PolicyRecipe(
                    PolicyModelSection(str(init or self.sft), sft=str(self.sft)),
                    PromptsSection(self.files["prompts"]),
                    [self.proxy],
                    RunOutput(str(self.folder / name)),
                    PolicySection(**{**settings, **setting.policy, **how}),
                )
            )

    # ---- measuring -----------------------------------------------------------------------------------------------------

    def measure(self, part: str, line: str, at: float, weights: Weights) -> None:
        """Evaluate weights with the same prompts and random numbers as all others; the proxy is 0 at the SFT model."""
        self.candidate.load_weights(weights)
        means = self.candidate.answers().means()
        zero = means["reward"] if part == "sft" else self.points[0]["raw_proxy"]
        numbers = {
            "proxy": means["reward"] - zero,
            "gold": means["control_gold"],
            "kl": means["kl_sft"],
            "entropy": means["entropy"],
            "raw_proxy": means["reward"],
            **{name: means[f"control_{name}"] for name in CONTROLS[1:]},
        }
        self.points.append({"part": part, "line": line, "at": at, **numbers})

    def trajectory(self, part: str, line: str, result: PolicyResult) -> None:
        with self.timed("evaluating trajectories"):
            for step, path in sorted(result.kept.items()):
                self.measure(part, line, step, load_file(path / "model.safetensors"))

    def front(self, part: str, line: str, models: Sequence[Path], method: str = "slerp", init: Path | None = None) -> None:
        """Evaluate LITI from the init, which is measured too where it is not the SFT model, to the merge and beyond."""
        merger = Merger([str(each) for each in models], init=str(init or self.sft), method=method, threads=1)
        with self.timed("evaluating fronts"):
            for eta in (*([] if init is None else [0.0]), *self.setting.etas):
                self.measure(part, line, eta, merger.state_dict(eta=eta))


def control(name: str) -> RewardTerm:
    """Return a function of the oracle; gold is the simple one, without style."""
    return RewardTerm(name=name, function=f"warmkit.testbed.oracle:{'simple_gold' if name == 'gold' else name}")


def _write_rows(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
