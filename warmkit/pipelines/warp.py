"""WARP: I iterations of M policies, merged and drawn back to their init, which the next iteration starts from.

    OUT/recipe.yaml                    every key resolved
    OUT/iteration-1/runs/run-1/...     the policies, each a run directory
    OUT/iteration-1/init               what the next iteration starts from: SLERP, then LITI at eta
    OUT/iteration-I/merged             the last SLERP
    OUT/model                          LITI of that towards the SFT model, at final_eta
    OUT/steps/*.json                   a manifest of every step: made of what, found what
    OUT/front.png, summary.json

A killed pipeline goes on where it was; nothing finished is done again.

Source: WARP (Ramé et al., 2024), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from warmkit.common.display import Displayed
from warmkit.common.json_files import dump_json
from warmkit.common.progress import Advance
from warmkit.common.records import having, list_of
from warmkit.common.whole_files import write_whole
from warmkit.engine.digests import file_digest
from warmkit.engine.spec import check_etas
from warmkit.errors import UsageError, nearest
from warmkit.evaluation.front import POINT, simplex, sweep
from warmkit.evaluation.merge_gain import GAIN, merge_gain, told
from warmkit.evaluation.policies import EvaluationSettings, PolicyTrial
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.layouts.compatibility import align
from warmkit.layouts.opening import open_inputs
from warmkit.pipelines.executors import open_executor
from warmkit.pipelines.members import check_model, digests_of_terms, recorded_digests, unrecorded
from warmkit.pipelines.policy_runs import PolicyRuns, run_name
from warmkit.pipelines.steps import DIGESTS, MERGED, Steps
from warmkit.pipelines.warp_pictures import draw
from warmkit.recipes.recipe import plain, recipe_text
from warmkit.training.distributed import refuse_group
from warmkit.training.policy_recipe import PolicyModelSection
from warmkit.training.recipe_sections import RunOutput
from warmkit.training.run import RunDirectory
from warmkit.training.run_identity import RunIdentity, run_identity
from warmkit.training.telling import Tell, tell_prompts
from warmkit.training.trackers import check_trackers
from warmkit.training.trained_precision import with_precision
from warmkit.training.warp_recipe import IterationsSection, WarpRecipe
from warmkit.verbs.merge import liti, merge
from warmkit.verbs.merger import Merger


@dataclass(frozen=True, repr=False)
class WarpResult(Displayed):
    """What the pipeline left and found.

    Attributes:
        path: The final model.
        summary: What `summary.json` holds.
    """

    path: Path
    summary: dict[str, Any]

    def _facts(self) -> Mapping[str, object]:
        return {"path": self.path, "iterations": len(self.summary["iterations"])}


def run_warp(
    recipe: WarpRecipe,
    *,
    force: bool = False,
    advance: Advance | None = None,
    address: str | None = None,
    tell: Tell | None = None,
    stage: Callable[[str], None] = lambda name: None,
) -> WarpResult:
    """Run WARP: train policies, merge them, repeat; or go on where a killed run stopped.

    Args:
        recipe: Recipe of the whole pipeline.
        force: Delete a pipeline of another recipe that lies there.
        advance: Progress callback, in steps of all runs.
        address: Of the Ray cluster of `warp.executor: ray`.
        tell: Called with a line for every run whose worker on it was lost, and about prompts that may be meant otherwise.
        stage: Called with the name of every part of the work as it begins.

    Raises:
        ChangedError: If a finished policy or merge, or what a run began with, was changed since.
        ClusterError: If the Ray cluster cannot be reached, or is lost.
        DataError: If a prompt cannot be used.
        MismatchError: If finished policies do not fit the init.
        TrainingError: If runs failed; the finished ones stay, and `warp.exclude` leaves the failed ones out.
        UsageError: If keys of the recipe do not go together.
    """
    refuse_group("warp")
    check(recipe)
    tell_prompts(tell, recipe.data.train, recipe.model.path, recipe.data.chat)
    run_jobs = open_executor(recipe.warp.executor, address, tell)
    recipe = with_precision(recipe, "policy")
    runs = PolicyRuns(recipe, run_jobs, advance or (lambda done, total: None))
    return Warp(recipe, runs, run_identity(_identity(recipe)), force, stage).run()


def check(recipe: WarpRecipe) -> None:
    """Refuse what could only fail later.

    Raises:
        UsageError: If fronts lack prompts, policies or different etas, a tracker's library is missing, or `warp.exclude`
            names no run or leaves none.
        MismatchError: If finished policies do not fit the init.
    """
    check_trackers(recipe.output)
    check_merges(recipe.warp, recipe.model.path, recipe.data.validation)


def check_merges(warp: IterationsSection, init: str, prompts: str | None) -> None:
    """Refuse merges and fronts that cannot be made; `prompts` are those to evaluate on.

    Raises:
        Whatever `check` does.
    """
    _check_fronts(warp, prompts, _check_policies(warp))
    if warp.policies is not None:
        align(open_inputs((init, *warp.policies), {}))


def _check_policies(warp: IterationsSection) -> int:
    """Refuse iterations without policies; return how many the last iteration has."""
    if warp.policies == []:
        raise UsageError("warp.policies: expected at least one finished policy, found none")
    trained = range(1 if warp.policies is None else 2, warp.iterations + 1)
    names = {i: [run_name(i, m) for m in range(warp.runs)] for i in trained}
    everyone = [name for each in names.values() for name in each]
    for name in warp.exclude:
        if name not in everyone:
            raise UsageError(f"warp.exclude: no run is called {name!r}{nearest(name, everyone)}")
    left = {i: len(set(each) - set(warp.exclude)) for i, each in names.items()}
    for i, count in left.items():
        if not count:
            raise UsageError(f"warp.exclude leaves no run of iteration {i}")
    return left.get(warp.iterations, len(warp.policies or ()))


def _check_fronts(warp: IterationsSection, prompts: str | None, policies: int) -> None:
    """Refuse fronts that could not be evaluated; `policies` are in the last iteration."""
    if (warp.etas or warp.grid) and prompts is None:
        raise UsageError("data.validation: expected prompts to evaluate the fronts on; or set warp.etas: [] for no fronts")
    if warp.grid is not None and policies < 2:
        raise UsageError(f"warp.grid mixes the policies of the last iteration: expected at least 2, found {policies}")
    try:
        check_etas(warp.etas or [1.0])
    except UsageError as error:
        raise UsageError(f"warp.etas: {error}") from None


class Runs(Protocol):
    """What trains the policies of an iteration.

    Attributes:
        evaluates: Whether there is something to evaluate policies with.
    """

    evaluates: bool

    def train(self, iteration: int, init: str) -> dict[str, str]:
        """Train what is left to train of one iteration; return the policies by name."""
        ...

    def settings(self) -> EvaluationSettings:
        """Return how policies are evaluated."""
        ...

    def scores(self, models: Mapping[str, str], steps: Steps) -> dict[str, float] | None:
        """Return what a command says that models are worth; None where there is none."""
        ...


class AnyRecipe(Protocol):
    """What a recipe of WARP has, whatever trains its policies."""

    @property
    def model(self) -> PolicyModelSection: ...
    @property
    def output(self) -> RunOutput: ...
    @property
    def controls(self) -> list[RewardTerm]: ...
    @property
    def warp(self) -> IterationsSection: ...


class Warp:
    """One call of the pipeline.

    Args:
        recipe: Of the whole.
        runs: What trains.
        identity: What makes two pipelines the same.
        force: Delete a pipeline of another recipe that lies there.
        stage: Called with the name of every part of the work as it begins.
    """

    def __init__(self, recipe: AnyRecipe, runs: Runs, identity: RunIdentity, force: bool, stage: Callable[[str], None]) -> None:
        self.recipe, self.warp, self.out = recipe, recipe.warp, Path(recipe.output.path)
        self.runs, self.stage = runs, stage
        self.sft = recipe.model.sft or recipe.model.path
        self.directory = RunDirectory(self.out, recipe_text(recipe), force, identity)
        self.steps, self.notes = Steps(self.out / "steps"), self.directory.notes
        self.controls = digests_of_terms(recipe.controls)

    def run(self) -> WarpResult:
        """Take the steps of algorithm 1, and look at every front."""
        init, iterations = self.recipe.model.path, list[dict[str, Any]]()
        for i in range(1, self.warp.iterations + 1):
            self.stage(f"training iteration {i} of {self.warp.iterations}")
            policies = self._policies(i, init)  # lines 3 to 11
            last = i == self.warp.iterations
            self.stage(f"merging iteration {i}")
            merged = self._merge(i, init, policies, 1.0 if last else self.warp.eta)  # lines 12 and 13
            self.stage(f"evaluating iteration {i}")
            front = self._front(f"iteration-{i}-front", list(policies.values()), init)
            gain = self._gain(f"iteration-{i}-gain", policies, init)
            scores = self.runs.scores({**policies, f"iteration-{i}/{Path(merged['path']).name}": merged["path"]}, self.steps)
            told = {} if scores is None else {"scores": scores}
            iterations.append({"init": init, "policies": policies, **merged, "front": front, "gain": gain, **told})
            init = merged["path"]
        self.stage("evaluating the last merge")
        final = self._final(init)
        scores = self.runs.scores({"sft": self.sft, "final": final["path"]}, self.steps)
        summary = {
            "iterations": iterations,
            "final": final,
            "front": self._front("front", [init], self.sft),
            "soups": self._soups(iterations[-1]),
            **({} if scores is None else {"scores": scores}),
            "notes": [*self.notes, *_notes(iterations)],
        }
        write_whole(self.out / "summary.json", dump_json(summary))
        draw(self.out, summary)
        return WarpResult(Path(final["path"]), summary)

    def _policies(self, i: int, init: str) -> dict[str, str]:
        """Return the policies of one iteration by name, each what its run left."""
        if i == 1 and self.warp.policies is not None:
            policies = {f"policy {m + 1}": path for m, path in enumerate(self.warp.policies)}
        else:
            policies = self.runs.train(i, init)
        for path in policies.values():
            check_model(Path(path))
        self.notes += unrecorded(policies)
        return policies

    def _merge(self, i: int, init: str, policies: dict[str, str], eta: float) -> dict[str, Any]:
        """Merge the policies of an iteration and draw the merge towards their init, in one write."""
        last = i == self.warp.iterations
        target = self.out / f"iteration-{i}" / ("merged" if last else "init")
        inputs = {
            "init": init,
            "policies": list(policies.values()),
            "method": self.warp.method,
            "eta": eta,
            DIGESTS: recorded_digests(policies),
        }
        name = f"iteration-{i}-{target.name}"
        later = self.out / f"iteration-{i + 1}"
        if later.exists() and self.steps.made_of_others(name, inputs):
            raise UsageError(
                f"{later}: started from a merge of other policies; give warp.exclude as it was, or delete the directory"
            )

        def work() -> dict[str, Any]:
            target.parent.mkdir(parents=True, exist_ok=True)
            result = merge(
                list(policies.values()),
                target,
                init=init,
                method=self.warp.method,
                eta=eta,
                granularity=self.warp.granularity,
                angles=True,
                force=target.exists(),
            )
            return {"path": str(target), "eta": eta, "method": result.method, "mean_angle": result.mean_angle}

        return self.steps.take(name, inputs, work, MERGED)

    def _final(self, merged: str) -> dict[str, Any]:
        target, eta = self.out / "model", self.warp.final_eta

        def work() -> dict[str, Any]:
            liti(merged, target, init=self.sft, eta=eta, force=target.exists())
            return {"path": str(target), "eta": eta}

        return self.steps.take("final", {"merged": self._made("merged"), "sft": self.sft, "eta": eta}, work, MERGED)

    def _front(self, name: str, policies: Sequence[str], init: str) -> list[dict[str, Any]]:
        """Evaluate LITI of a merge at every eta, in memory."""
        if not self.warp.etas or not self.runs.evaluates:
            return []
        inputs = {"init": init, "policies": list(policies), "etas": self.warp.etas, "made": self._made(name)}
        return self._evaluated(name, inputs, self.warp.etas, (None,))

    def _gain(self, name: str, policies: dict[str, str], init: str) -> dict[str, Any] | None:
        """Evaluate the policies of an iteration beside their merge, where there are fronts and something to merge."""
        if not self.warp.etas or not self.runs.evaluates or len(policies) < 2:
            return None
        inputs = {
            "init": init,
            "policies": policies,
            "samples": self.warp.samples,
            "on": self._seen(),
            DIGESTS: recorded_digests(policies) | self.controls,
        }

        def work() -> dict[str, Any]:
            how: dict[str, Any] = {"init": init, "method": self.warp.method, "granularity": self.warp.granularity}
            candidate = PolicyTrial(self.runs.settings()).open(self.sft)
            return merge_gain(candidate, Merger(list(policies.values()), **how), policies)

        return self.steps.take(name, inputs, work, GAIN)

    def _soups(self, iteration: dict[str, Any]) -> list[dict[str, Any]]:
        """Evaluate averages of the last policies on a grid of shares (rewarded soups, Ramé et al., 2023)."""
        policies = list(iteration["policies"].values())
        if self.warp.grid is None or not self.runs.evaluates:
            return []
        inputs = {"init": iteration["init"], "policies": policies, "grid": self.warp.grid, "made": self._made("soups")}
        return self._evaluated("soups", inputs, [1.0], simplex(len(policies), self.warp.grid))

    def _evaluated(
        self, name: str, inputs: dict[str, Any], etas: Sequence[float], mixes: Sequence[Any]
    ) -> list[dict[str, Any]]:
        digests = recorded_digests({path: path for path in inputs["policies"]}) | self.controls
        inputs |= {"samples": self.warp.samples, "on": self._seen(), DIGESTS: digests}

        def work() -> dict[str, Any]:
            trial = PolicyTrial(self.runs.settings())
            method = self.warp.method if len(inputs["policies"]) > 1 else "slerp"
            merger = Merger(inputs["policies"], init=inputs["init"], method=method, granularity=self.warp.granularity)
            return {"points": [point.to_dict() for point in sweep(trial.open(self.sft), merger, etas, mixes)]}

        return self.steps.take(name, inputs, work, having(points=list_of(POINT)))["points"]

    def _made(self, of: str) -> Any:
        """Return what the merge that a step looks at was made of: its path alone stays the same when runs are left out."""
        number = self.warp.iterations
        known = self.steps.recorded(f"iteration-{number}-merged")
        return None if known is None or of.startswith("iteration") else known["inputs"]

    def _seen(self) -> list[Any]:
        """Return what evaluations depend on beside the policies, and what is no part of the pipeline's identity."""
        source = self.runs.settings().prompts
        digest = file_digest(Path(source)) if Path(source).is_file() else "not a file"
        return [source, digest, [plain(term) for term in self.recipe.controls]]


def _identity(recipe: WarpRecipe) -> WarpRecipe:
    """Return the recipe without the keys that change what is looked at or how far it goes, not what is trained."""
    warp = replace(recipe.warp, iterations=len(recipe.warp.steps or [1]), final_eta=1.0, etas=[], grid=None)
    return replace(recipe, controls=[], warp=replace(warp, samples=1, jobs=None, executor="processes", exclude=[]))


def _notes(iterations: Sequence[dict[str, Any]]) -> list[str]:
    found = [told(each["gain"], f"iteration {i}") for i, each in enumerate(iterations, 1) if each["gain"]]
    return [note for note in found if note is not None]
