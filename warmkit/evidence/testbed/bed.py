"""One seed of the testbed: its data, models and runs, all made with warmkit's own training, each when it is first asked for.

    SEED/data/*.jsonl        preferences, prompts, labels
    SEED/sft/...             the SFT model; SEED/trajectory/* earlier checkpoints of its run
    SEED/reward-models/NAME  probe and runs of one WARM pool
    SEED/policies/NAME       runs of RL
    SEED/merged/NAME         averages on disk
    SEED/made/NAME.json      what each of these cost

A run that is there is taken as it is, one that was killed goes on, and processes that want the same one wait for each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from warmkit.common.progress import Advance
from warmkit.common.random_streams import generator, run_seed
from warmkit.common.whole_files import write_whole
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evidence.testbed import language, oracle, out_of_distribution, pretraining
from warmkit.evidence.testbed.made_once import Products
from warmkit.evidence.testbed.sizes import PoliciesSection, TestbedSettings
from warmkit.pipelines import warm
from warmkit.training.policy import PolicyResult, train_policy
from warmkit.training.policy_recipe import PolicyModelSection, PolicyRecipe, PolicySection, PromptsSection
from warmkit.training.recipe_sections import (
    DataSection,
    ModelSection,
    RewardModelRecipe,
    RewardOptimization,
    RunOutput,
    WarmRecipe,
    WarmSection,
)
from warmkit.training.reward_modeling import load_comparisons, open_for_training, split, train_reward_model
from warmkit.verbs.merge import merge

HELD_OUT_PROMPTS = 16
SHARES = (0.8, 0.9, 1.0)
"""Of the SFT run at which the inits of Baklava lie."""
EARLY = (0.1, 0.2, 0.4)
"""Where inits lie that are taken too early."""


@dataclass(frozen=True)
class Pool:
    """Reward models of one WARM run.

    Attributes:
        name: Of the pool.
        probe: The shared head on the frozen SFT model, never fine-tuned.
        runs: The fine-tuned models, by name, in the order in which they were started.
        data: What they learn from; on what they are evaluated `Testbed.contest` says, all of them in one way.
        recipes: How the runs were trained, by name.
    """

    name: str
    probe: Path
    runs: dict[str, Path]
    data: DataSection
    recipes: dict[str, RewardModelRecipe]

    @property
    def paths(self) -> list[Path]:
        return list(self.runs.values())


class Testbed:
    """One seed.

    Args:
        folder: Of the seed.
        seed: Of everything.
        settings: How large it is.
        ending: Whether responses end before their last word: the language of WARP's length bias.
    """

    __test__ = False  # pytest

    def __init__(self, folder: Path, seed: int, settings: TestbedSettings, ending: bool = False) -> None:
        self.folder, self.seed, self.settings, self.ending = folder, seed, settings, ending
        self.products = Products(folder)
        self.oracle = "simple_gold" if ending else "gold"
        self.unspoken = language.UNSPOKEN_ENDING if ending else language.UNSPOKEN
        self.longest = language.LENGTH + ending

    @property
    def gold(self) -> language.Gold:
        """The gold reward."""
        return getattr(oracle, self.oracle)

    def with_ending(self) -> Testbed:
        """Return the testbed of the same seed whose responses end, in a folder inside; what it makes counts here."""
        bed = Testbed(self.folder / "ending", self.seed, self.settings, ending=True)
        bed.products = self.products.part("ending")
        return bed

    # ---- data ----------------------------------------------------------------------------------------------------------

    def data(self, name: str, rows: Callable[[], Sequence[Mapping[str, Any]]]) -> str:
        """Return a file of rows, written once."""
        file = self.folder / "data" / f"{name}.jsonl"

        def write() -> None:
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(file, "".join(json.dumps(row) + "\n" for row in rows()).encode())

        self.products.once(f"data/{name}", write)
        return str(file)

    def preferences(self, name: str, count: int, gold: language.Gold | None = None, **how: Any) -> str:
        """Return preferences of the language, labelled by the oracle or another gold reward; every name has rows of its own."""
        gold = gold or self.gold
        return self.data(name, lambda: language.preferences(count, self.seed, gold, name=name, ending=self.ending, **how))

    @cached_property
    def train(self) -> str:
        return self.preferences("train", self.settings.reward_models.pairs)

    @cached_property
    def validation(self) -> str:
        return self.preferences("validation", self.settings.reward_models.held_out)

    @cached_property
    def ood(self) -> str:
        """Responses of other policies at high temperature."""
        count, inits = self.settings.reward_models.held_out, self.inits
        return self.data(
            "ood", lambda: out_of_distribution.sampled_preferences(inits, count, self.seed, self.gold, ending=self.ending)
        )

    @cached_property
    def prompts(self) -> str:
        return self.data("prompts", lambda: self._prompts()[HELD_OUT_PROMPTS:])

    @cached_property
    def held_out_prompts(self) -> str:
        return self.data("held-out-prompts", lambda: self._prompts()[:HELD_OUT_PROMPTS])

    def _prompts(self) -> list[dict[str, str]]:
        order = generator("held-out prompts", self.seed).permutation(language.all_prompts()).tolist()
        return [{"prompt": each} for each in order]

    # ---- models --------------------------------------------------------------------------------------------------------

    @cached_property
    def trajectory(self) -> dict[float, Path]:
        """Checkpoints along the SFT run, by their shares of it; the last is the SFT model."""
        return self.pretrained()

    def pretrained(self, advance: Advance | None = None) -> dict[float, Path]:
        """Train the SFT model, if it is not there yet; return `trajectory`."""
        how, shares = self.settings.pretraining, (*EARLY, *SHARES)
        paths = self.products.once(
            "sft",
            lambda: pretraining.pretrain(
                self.folder / "sft",
                self.seed,
                steps=how.steps,
                batch_size=how.batch_size,
                lr=how.lr,
                shape=pretraining.Shape(how.width, how.layers, how.heads, how.spread or pretraining.Shape.spread),
                keep=shares,
                ending=self.ending,
                advance=advance,
            ),
        )
        return dict(zip(shares, paths))

    @property
    def inits(self) -> list[Path]:
        """The late ones, the inits of Baklava."""
        return [self.trajectory[share] for share in SHARES]

    @property
    def sft(self) -> Path:
        return self.inits[-1]

    def prepared(
        self,
        name: str,
        runs: int,
        *,
        train: str | None = None,
        corrupt: float | None = None,
        inits: Sequence[Path] | None = None,
        lr: Sequence[float] | None = None,
        skip: int = 0,
        **how: Any,
    ) -> Pool:
        """Prepare the reward models of a WARM run as `warmkit warm` does: the probe, and a grid of rates and inits to train.

        Args:
            name: Of the pool.
            runs: How many; a larger pool of the same name has the runs of the smaller one and more.
            train: File of preferences; by default the testbed's.
            corrupt: Share of swapped labels; by default the testbed's.
            inits: Of the grid; by default those along the SFT run.
            lr: Of the grid; by default the testbed's.
            skip: Runs that are left out at the beginning; the others have the orders that they would have had.
            how: Other keys of `rm:`.
        """
        shared, out = self.settings.reward_models, self.folder / "reward-models" / name
        recipe = WarmRecipe(
            ModelSection(str(self.sft)),
            DataSection(
                train or self.train,
                corrupt=shared.corrupt if corrupt is None else corrupt,
                corrupt_seed=self.seed,
            ),
            RunOutput(str(out)),
            replace(
                RewardOptimization(
                    steps=shared.steps,
                    batch_size=shared.batch_size,
                    precision="float32",
                    order=self.seed,
                    seed=self.seed,
                ),
                **how,
            ),
            WarmSection(
                runs=max(2, skip + runs),
                lr=list(shared.lr if lr is None else lr),
                inits=[str(each) for each in inits or self.inits],
                seed=self.seed,
            ),
        )
        recipe = replace(recipe, data=self.products.once(f"{name}/data", lambda: warm.prepared_data(recipe, out)))
        probe = self.products.once(f"{name}/probe", lambda: warm.train_probe(recipe, out))
        recipes = dict(list(warm.run_recipes(recipe, out).items())[skip : skip + runs])
        paths = {each: Path(run.output.path) / "model" for each, run in recipes.items()}
        return Pool(name, probe, paths, recipe.data, recipes)

    def pool(self, name: str, runs: int, **how: Any) -> Pool:
        """Prepare a pool and train its runs; see `prepared`."""
        pool = self.prepared(name, runs, **how)
        works = {f"reward-models/{name}/{run}": partial(train_reward_model, each) for run, each in pool.recipes.items()}
        self.products.all(works)
        return pool

    def member(self, pool: Pool, run: str, advance: Advance | None = None) -> None:
        """Train a run of a pool."""
        self.reward_model(f"{pool.name}/{run}", pool.recipes[run], advance)

    def variant(
        self,
        pool: Pool,
        run: str,
        name: str,
        *,
        init: Path | None = None,
        head: Path | Literal["probed"] | None = None,
        **how: Any,
    ) -> Path:
        """Train a run of a pool once more, in the same order of the data, from elsewhere or in another way.

        Args:
            pool: Which.
            run: Of the pool.
            name: Of what is different.
            init: Where it starts; by default where the run did.
            head: What it starts with; by default the pool's probe, `probed` for a probe of its own init.
            how: Other keys of `rm:`.
        """
        base = pool.recipes[run]
        first = None if head == "probed" else str(head or pool.probe)
        recipe = replace(
            base,
            model=replace(base.model, path=str(init or base.model.path), head=first),
            output=RunOutput(str(self.folder / "reward-models" / name / run)),
            rm=replace(base.rm, **{"keep": [], **how}),
        )
        return self.reward_model(f"{name}/{run}", recipe).path

    def reward_model(self, name: str, recipe: RewardModelRecipe, advance: Advance | None = None) -> Any:
        """Train a reward model; return its result."""
        return self.products.once(f"reward-models/{name}", lambda: train_reward_model(recipe, advance=advance))

    def contest(self, pool: Pool, only: Sequence[str] = (), **others: Path) -> Contest:
        """Return what scores the models of a pool, other models, and averages of them, on the pool's data or some of it."""
        model = open_for_training(ModelSection(str(pool.probe)))
        section = replace(pool.data, validation=self.validation, ood=self.ood)
        data = split(load_comparisons(section, ModelSection(str(pool.probe)), model))
        data = {name: each for name, each in data.items() if not only or name in only}
        return Contest(model, data, {**pool.runs, "probe": pool.probe, **others}, self.folder / "scores" / pool.name)

    def average(self, name: str, paths: Sequence[Path], **how: Any) -> Path:
        """Merge models on disk, by default into their uniform soup."""
        target = self.folder / "merged" / name
        settings: dict[str, Any] = {"method": "uniform", "threads": 1, **how}

        def work() -> Path:
            if not target.exists():
                merge([str(each) for each in paths], target, **settings)
            return target

        return self.products.once(f"merged/{name}", work)

    # ---- policies ------------------------------------------------------------------------------------------------------

    def policy(
        self,
        name: str,
        rewards: Sequence[RewardTerm],
        shared: PoliciesSection,
        *,
        init: Path | None = None,
        runs: int = 1,
        order: int = 1,
        advance: Advance | None = None,
        **how: Any,
    ) -> PolicyResult:
        """Train a policy.

        Args:
            name: Of the run.
            rewards: What it learns from.
            shared: The testbed's `warm_policies` or `warp_policies`.
            init: Where it starts; by default the SFT model.
            runs: Its length in T.
            order: Of the prompts, and seed of the sampling.
            advance: Progress callback, in steps.
            how: Other keys of `policy:`.
        """
        settings: dict[str, Any] = {
            "baseline": "leave-one-out",
            "temperature": 1.0,
            "max_new_tokens": self.longest,
            "banned": self.unspoken,
            **{key: getattr(shared, key) for key in ("lr", "warmup", "batch_size", "samples", "anchor", "beta", "mu")},
            "precision": "float32",
            "steps": runs * shared.steps,
            "keep": shared.steps_to_watch(runs),
            "order": run_seed(self.seed, order),
            "seed": run_seed(self.seed, order),
            "save_every": 10 * shared.steps,
        }
        recipe = PolicyRecipe(
            PolicyModelSection(str(init or self.sft), sft=str(self.sft)),
            PromptsSection(self.prompts),
            list(rewards),
            RunOutput(str(self.folder / "policies" / name)),
            PolicySection(**{**settings, **how}),
        )
        return self.products.once(f"policies/{name}", lambda: train_policy(recipe, advance=advance))
