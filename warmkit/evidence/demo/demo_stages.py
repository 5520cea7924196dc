"""The demo task by task: each finds on disk what others have left, and leaves there what it found."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from warmkit.common.json_files import dump_json
from warmkit.common.records import read_record
from warmkit.common.whole_files import write_whole
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.ranking_pairs import VALIDATION, with_ranking
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evidence.claims.proxies import proxy
from warmkit.evidence.demo.demo import DOCUMENT, ETAS, LITI, MEMBERS, POLICIES, Plan
from warmkit.evidence.demo.demo_rewards import HELD_OUT, SWAPPED, of_choice, of_hearts
from warmkit.evidence.tasks import Advance
from warmkit.evidence.testbed.bed import Pool, Testbed
from warmkit.evidence.testbed.gold_judge import Judge, Weights
from warmkit.pipelines.warm_choice import choose
from warmkit.training.policy import PolicyResult
from warmkit.training.recipe_sections import WarmSection
from warmkit.verbs.merger import Merger

FRONT = "SLERP and LITI"
ASKED = 2
"""Prompts whose answers are shown."""
PARTS = ("reward-models", "memorised", *POLICIES, FRONT, "answers")
Document = dict[str, Any]


# ---- SFT model and data -------------------------------------------------------------------------------------------------


def sft(plan: Plan, advance: Advance) -> None:
    """Train the SFT model."""
    _bed(plan).pretrained(advance)


def preferences(plan: Plan, advance: Advance) -> None:
    """Write what needs no model: pairs to learn from and to measure on, and prompts."""
    bed = _bed(plan)
    for write in (lambda: bed.train, lambda: bed.validation, lambda: _by_heart(bed, plan), lambda: bed.prompts):
        write()
        advance(1, 4)


def others(plan: Plan, advance: Advance) -> None:
    """Write pairs of samples that are unlike the training data."""
    advance(len(_bed(plan).ood) > 0, 1)


# ---- reward models ------------------------------------------------------------------------------------------------------


def probe(plan: Plan, advance: Advance) -> None:
    """Train the head that all reward models start with."""
    advance(len(_members(plan).runs) > 0, 1)


def member(plan: Plan, run: str, advance: Advance) -> None:
    """Train a reward model."""
    _bed(plan).member(_members(plan), run, advance)


def scores(plan: Plan, run: str, advance: Advance) -> None:
    """Score held-out pairs with a reward model."""
    contest = _contest(plan)
    for data in HELD_OUT:
        contest.average([run], only=[data])
        advance(1, len(HELD_OUT))


def choice(plan: Plan, advance: Advance) -> None:
    """Choose the members of WARM as `warmkit warm` does with its defaults, merge them, and compare."""

    def work() -> Document:
        contest, pool = _contest(plan), _members(plan)
        averages = MEMBERS * (MEMBERS - 1) // 2
        chosen = choose(contest, list(pool.runs), WarmSection(runs=MEMBERS), lambda: advance(1, averages))
        _bed(plan).average("warm", [pool.runs[name] for name in chosen.members])
        return of_choice(contest, chosen)

    _leave(plan, "reward-models", work)


def heart(plan: Plan, run: str, advance: Advance) -> None:
    """Train a reward model that learns a few pairs by heart."""
    _bed(plan).member(_hearts(plan), run, advance)


def memory(plan: Plan, advance: Advance) -> None:
    """Measure what was learned by heart."""

    def work() -> Document:
        bed, pool = _bed(plan), _hearts(plan)
        whole = bed.contest(pool, only=[SWAPPED, VALIDATION])
        data = {name: each for name, each in with_ranking(whole.data).items() if name in (SWAPPED, VALIDATION)}
        contest = Contest(whole.model, data, whole.members, whole.cache)
        for run in pool.runs:
            contest.individual(run)
            advance(1, len(pool.runs) + 1)
        return of_hearts(contest, list(pool.runs))

    _leave(plan, "memorised", work)


# ---- policies -----------------------------------------------------------------------------------------------------------


def policy(plan: Plan, name: str, advance: Advance) -> None:
    """Train a policy, and evaluate it on its way."""

    def work() -> Document:
        run, judge = _policy(plan, name, lambda done, total: advance(0.6 * done, total)), _judge(plan)
        points = [{"at": 0.0, **judge.sft}]
        for step, path in sorted(run.kept.items()):
            points.append({"at": float(step), **_measured(judge, load_file(path / "model.safetensors"))})
            advance(0.4, len(run.kept))
        return {"points": points}

    _leave(plan, name, work)


def front(plan: Plan, advance: Advance) -> None:
    """Merge the two policies, and evaluate the merge and the way back to the SFT model."""

    def work() -> Document:
        bed, judge = _bed(plan), _judge(plan)
        pair = [str(_policy(plan, name).path) for name in ("policy 1", "policy 2")]
        bed.average("slerp", [Path(each) for each in pair], init=str(bed.sft), method="slerp")
        bed.average("liti", [Path(each) for each in pair], init=str(bed.sft), method="slerp", eta=LITI)
        merger = Merger(pair, init=str(bed.sft), method="slerp", threads=1)
        points: list[Document] = []
        for eta in ETAS:
            points.append({"at": eta, **_measured(judge, merger.state_dict(eta=eta))})
            advance(1, len(ETAS))
        return {"points": points}

    _leave(plan, FRONT, work)


def answers(plan: Plan, advance: Advance) -> None:
    """Let policies answer a few prompts."""

    def work() -> Document:
        bed, judge = _bed(plan), _judge(plan)
        places = {"SFT": bed.sft, **{name: _policy(plan, name).path for name in POLICIES}}
        places[f"LITI {LITI}"] = bed.folder / "merged" / "liti"
        rows: list[Document] = []
        for name, path in places.items():
            judge.candidate.load_weights(load_file(path / "model.safetensors"))
            found = judge.candidate.answers(samples=1)
            golds = found.values["control_gold"][:, 0].tolist()
            texts = [each[0] for each in found.texts]
            told = list(zip(found.prompts, texts, golds))[:ASKED]
            rows += [{"prompt": prompt, "policy": name, "answer": text, "gold": gold} for prompt, text, gold in told]
            advance(1, len(places))
        return {"examples": rows}

    _leave(plan, "answers", work)


def whole(plan: Plan, advance: Advance) -> None:
    """Write the document."""
    found = {part: read_record(_file(plan, part), {}) for part in PARTS}
    lines = {name: found[name]["points"] for name in (*POLICIES, FRONT)}
    ends = {name: lines[name][-1] for name in POLICIES}
    along = {point["at"]: point for point in lines[FRONT]}
    rows = {"SFT": along[0.0], **ends, "SLERP": along[1.0], f"LITI {LITI}": along[LITI]}
    document = {
        "seed": plan.seed,
        **found["reward-models"],
        **found["memorised"],
        "policies": [{"policy": name, **numbers} for name, numbers in rows.items()],
        "points": [{"line": name, **point} for name, points in lines.items() for point in points],
        **found["answers"],
    }
    write_whole(plan.folder / DOCUMENT, dump_json(document))
    advance(1, 1)


# ---- what tasks share ---------------------------------------------------------------------------------------------------


def _bed(plan: Plan) -> Testbed:
    return Testbed(plan.folder, plan.seed, plan.settings.testbed)


def _leave(plan: Plan, name: str, work: Callable[[], Document]) -> None:
    """Leave what `work` finds in `found/NAME.json`, if it is not there yet."""
    file = _file(plan, name)
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        write_whole(file, dump_json(work()))


def _file(plan: Plan, name: str) -> Path:
    return plan.folder / "found" / f"{name.replace(' ', '-')}.json"


def _members(plan: Plan) -> Pool:
    bed = _bed(plan)
    return bed.prepared("demo", MEMBERS, inits=[bed.sft], save_every=plan.settings.saved)


def _by_heart(bed: Testbed, plan: Plan) -> str:
    return bed.preferences("memorised", plan.settings.heart.pairs)


def _hearts(plan: Plan) -> Pool:
    bed, how = _bed(plan), plan.settings.heart
    pairs: dict[str, Any] = {"train": _by_heart(bed, plan), "corrupt": how.corrupt, "inits": [bed.sft], "lr": [how.lr]}
    return bed.prepared("memorising", how.models, **pairs, steps=how.steps, save_every=plan.settings.saved)


@functools.lru_cache(maxsize=1)
def _contest(plan: Plan) -> Contest:
    found = _bed(plan).contest(_members(plan), only=[VALIDATION, "ood"])
    return Contest(found.model, with_ranking(found.data), found.members, found.cache)


@functools.lru_cache(maxsize=1)
def _reward(plan: Plan) -> RewardTerm:
    bed = _bed(plan)
    return proxy(bed, [bed.folder / "merged" / "warm"])


@functools.lru_cache(maxsize=1)
def _judge(plan: Plan) -> Judge:
    return Judge(_bed(plan), _reward(plan))


def _policy(plan: Plan, name: str, advance: Advance | None = None) -> PolicyResult:
    bed, how = _bed(plan), POLICIES[name]
    folder, shared = name.replace(" ", "-"), plan.settings.testbed.warp_policies
    return bed.policy(folder, [_reward(plan)], shared, advance=advance, save_every=plan.settings.saved, **how)


def _measured(judge: Judge, weights: Weights) -> Document:
    """Return what the judge measures, and the gold reward of every prompt."""
    judge.candidate.load_weights(weights)
    found = judge.candidate.answers()
    return {**judge.numbers(found), "golds": found.values["control_gold"].mean(1).tolist()}
