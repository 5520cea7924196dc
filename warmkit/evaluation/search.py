"""Search of merges: coefficients, update rates, windows, methods, or gradients over the layers, by any score.

    OUT/search.jsonl    what is searched, then a line for every candidate: its numbers, scores and seconds
    OUT/search.json     what was found
    OUT/model           the best candidate, written by the merge engine; where there is one score

A killed search goes on where it was: candidates follow from the seed and from the scores before them, and no candidate is
scored twice.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xxhash

from warmkit.common.addresses import without_assigned_secrets
from warmkit.common.display import Displayed
from warmkit.common.json_files import dump_json
from warmkit.common.progress import Advance
from warmkit.common.random_streams import generator
from warmkit.common.records import checked, dict_of, having, is_anything, is_natural, is_number, is_text, maybe, parsed
from warmkit.common.whole_files import write_whole, writing
from warmkit.engine.job import input_rows
from warmkit.engine.merge_options import check_models
from warmkit.errors import ChangedError, FormatError, OutputError, UsageError
from warmkit.evaluation.candidate_scores import Score, Trials, read_score
from warmkit.layouts.opening import open_inputs
from warmkit.verbs.merge import merge
from warmkit.verbs.search_space import Candidate, Range, Space, read_range

STRATEGIES = ("cmaes", "grid", "random")
HELD_OUT = "held-out"
SPREAD = 0.25  # of CMA-ES at its start, as a share of every range
REPEATS = 1000  # candidates in a row that were tried before: there are no others
LINE = {"number": is_natural, "candidate": dict_of(is_anything), "scores": dict_of(is_number), "seconds": dict_of(is_number)}
TRIED = having(**LINE, held_out=maybe(is_number))

Proposals: TypeAlias = Generator[Candidate, float | None, None]
"""Candidates, each answered by its cost: less is better."""


@dataclass(frozen=True)
class Tried:
    """Candidate that was merged and scored.

    Attributes:
        number: In the order of the search; 0 is the merge without what is searched, to compare with.
        candidate: Its method and numbers.
        scores: By name.
        held_out: The held-out score; None where the candidate was no better than those before.
        seconds: Of merging and of scoring.
    """

    number: int
    candidate: Candidate
    scores: dict[str, float]
    held_out: float | None
    seconds: dict[str, float]


@dataclass(frozen=True, repr=False)
class SearchResult(Displayed):
    """What a search found.

    Attributes:
        path: The best candidate, merged; None where there are several scores.
        tried: Every candidate.
        best: The best one, by the first score.
        front: With several scores, those that no other beats in all of them, by the first score.
        why: Why the search ended.
    """

    path: Path | None
    tried: list[Tried]
    best: Tried
    front: list[Tried]
    why: str

    def _facts(self) -> Mapping[str, object]:
        return {
            "path": self.path,
            "of": f"{len(self.tried)} candidates",
            "best": words(self.best.candidate),
            **self.best.scores,
        }

    def _rows(self) -> Sequence[Mapping[str, object]]:
        return [{**each.candidate, **each.scores} for each in self.front]


def words(candidate: Candidate) -> str:
    """Write a candidate in a line.

    Examples:
        >>> words({"method": "lerp", "lambda": 0.25, "eta": 1.1})
        'lerp, lambda 0.25, eta 1.1'
    """
    shown = (f"{name} {json.dumps(value)}" for name, value in candidate.items() if name != "method")
    return ", ".join([candidate["method"], *shown])


def search(
    models: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    scores: Sequence[Score | str],
    ranges: Sequence[Range | str] = (),
    methods: Sequence[str] = ("slerp",),
    init: str | os.PathLike[str] | None = None,
    held_out: str | None = None,
    strategy: str | None = None,
    evaluations: int = 50,
    minutes: float | None = None,
    steps: int = 5,
    seed: int = 0,
    fixed: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = lambda line: None,
    advance: Advance | None = None,
    **options: Any,
) -> SearchResult:
    """Search the numbers of a merge for the best score; or go on where a killed search stopped.

    Args:
        models: What is merged; of a run's checkpoints, the oldest first.
        output: Directory of the search.
        scores: What decides, the first one first; a text is read by `read_score`, and more is better.
        ranges: The numbers that are searched; a text is read by `read_range`.
        methods: Merge methods to choose from.
        init: What the models were fine-tuned from.
        held_out: The first score on other data, as `Score.what`, for every candidate that is better than those before: it shows
            how much of a gain is fitted to the score.
        strategy: `cmaes` (one score, at least two numbers), `grid` or `random`; by default the first of them that fits.
        evaluations: Most candidates to score, in all.
        minutes: Longest time of merging and scoring, in all.
        steps: Values of every number on a grid.
        seed: Of the candidates.
        fixed: Parameters of every candidate: `granularity`, `antiparallel` and those of the method.
        report: Called with a line for every candidate.
        advance: Progress callback, in candidates.
        **options: How models are read: `threads`, `allow_pickle`, `state_dict`.

    Raises:
        ChangedError: If the search that lies there tried other candidates.
        OutputError: If another search lies there, or is working there.
        ScoreError: If a score fails or is no number; candidates that were scored stay.
        UsageError: If the numbers, the scores or the strategy do not go together.
    """
    check_models(models)
    scores = [read_score(each) if isinstance(each, str) else each for each in scores]
    ranges = [read_range(each) if isinstance(each, str) else each for each in ranges]
    names = [each.name for each in scores]
    if not scores or len(set(names)) < len(names) or HELD_OUT in names:
        raise UsageError(f"expected scores of different names, none called {HELD_OUT}, found {names}")
    if held_out is not None and len(scores) > 1:
        raise UsageError("--held-out is for one score: several give a front, on which nothing is chosen by one number")
    if evaluations < 1 or (minutes is not None and minutes <= 0):
        raise UsageError("expected at least 1 evaluation, and a time above 0")
    space = Space(len(models), methods, ranges, fixed or {})
    for spec in space.examples():
        input_rows(spec, init, models)  # which needs an init, or not
    if strategy is None and (missing := _without_cma(space, len(scores))):
        report(missing)
    strategy = _strategy(strategy, space, len(scores))
    paths, start = [str(each) for each in models], None if init is None else str(init)
    apart = None if held_out is None else Score(HELD_OUT, held_out, scores[0].smaller)
    out = Path(output)
    described = {
        "models": paths,
        "init": start,
        "methods": space.methods,
        "ranges": [asdict(each) for each in ranges],
        "scores": [{**asdict(each), "what": without_assigned_secrets(each.what)} for each in scores],
        "held_out": None if apart is None else without_assigned_secrets(apart.what),
        "strategy": strategy,
        "steps": steps if strategy == "grid" else None,
        "seed": seed,
        "fixed": dict(fixed or {}),
    }
    given = open_inputs(paths if start is None else [start, *paths], options)  # type: ignore[arg-type]
    secret = [each.what for each in (*scores, *([apart] if apart else []))]
    identity = json.dumps([described, secret, [each.fingerprint() for each in given]])
    journal = _Journal(out, described, xxhash.xxh3_128_hexdigest(identity.encode()))
    try:
        trials = Trials(space, paths, start, [*scores, *([apart] if apart else [])], out / "candidate", options)
        budget = _Budget(evaluations, minutes)
        tried, why = _tried(trials, _proposals(strategy, space, steps, seed), scores, apart, journal, budget, report, advance)
        best = min(tried, key=lambda each: scores[0].cost(each.scores[scores[0].name]))
        path = out / "model" if len(scores) == 1 else None
        if path is not None:
            merge(paths, path, init=start, **space.arguments(best.candidate), **options, force=path.exists())
        result = SearchResult(path, tried, best, pareto(tried, scores), why)
        write_whole(out / "search.json", dump_json(document(result, described)))
        return result
    finally:
        journal.close()


def document(result: SearchResult, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `search.json` holds."""
    return {
        **described,
        "path": None if result.path is None else str(result.path),
        "start": asdict(result.tried[0]),
        "best": asdict(result.best),
        "front": [asdict(each) for each in result.front],
        "evaluations": len(result.tried),
        "seconds": {what: sum(each.seconds[what] for each in result.tried) for what in ("merging", "scoring")},
        "why": result.why,
    }


def pareto(tried: Sequence[Tried], scores: Sequence[Score]) -> list[Tried]:
    """Return the candidates that no other beats, being as good in all scores and better in one; by the first score.

    Args:
        tried: All of them; of equals, the first stays.
        scores: What decides.
    """
    costs = np.array([[each.cost(one.scores[each.name]) for each in scores] for one in tried])
    beaten = [((costs <= own).all(1) & (costs < own).any(1)).any() for own in costs]
    first = {tuple(cost): place for place, cost in reversed(list(enumerate(costs.tolist())))}
    kept = [place for place in first.values() if not beaten[place]]
    return [tried[place] for place in sorted(kept, key=lambda place: costs[place].tolist())]


# ---- the loop -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Budget:
    evaluations: int
    minutes: float | None

    def ended(self, tried: Sequence[Tried]) -> str | None:
        """Say why no further candidate is tried."""
        if len(tried) >= self.evaluations:
            return "the budget is spent"
        if self.minutes is not None and sum(sum(each.seconds.values()) for each in tried) >= 60 * self.minutes:
            return "the time is spent"
        return None


def _tried(
    trials: Trials,
    proposals: Proposals,
    scores: Sequence[Score],
    apart: Score | None,
    journal: _Journal,
    budget: _Budget,
    report: Callable[[str], None],
    advance: Advance | None,
) -> tuple[list[Tried], str]:
    """Try candidates until the budget or the proposals end; return them, and why."""
    first, tried, lowest = scores[0], list[Tried](), np.inf
    known = dict[str, Tried]()
    candidate, answer, repeats = {"method": trials.space.methods[0]}, None, 0
    while (why := budget.ended(tried)) is None:
        number, key = len(tried), json.dumps(candidate)
        repeats += 1
        if (one := known.get(key)) is None:
            repeats = 0
            if (one := journal.recorded(number, candidate)) is None:
                found, seconds = trials.measure(
                    candidate,
                    scores,
                    lambda found, most=lowest: [apart] if apart and first.cost(found[first.name]) < most else [],
                )
                one = Tried(number, candidate, found, found.pop(HELD_OUT, None), seconds)
                journal.add(one)
            known[key] = one
            tried.append(one)
            report(_line(one, budget.evaluations))
            if advance is not None:
                advance(1, budget.evaluations)
        cost = first.cost(one.scores[first.name])
        lowest = min(lowest, cost)
        try:
            candidate, answer = proposals.send(answer and cost), True
        except StopIteration:
            repeats = REPEATS
        if repeats >= REPEATS:
            return tried, "there are no others"
    return tried, why


def _line(one: Tried, most: int) -> str:
    shown = ", ".join(f"{name} {value:.6g}" for name, value in one.scores.items())
    held_out = "" if one.held_out is None else f", held-out {one.held_out:.6g}"
    return f"scored {one.number + 1} of {most}: {words(one.candidate)}: {shown}{held_out}"


# ---- candidates -----------------------------------------------------------------------------------------------------


def _fits_cmaes(space: Space, scores: int) -> bool:
    return scores == 1 and space.size > 1 and len(space.methods) == 1


def _without_cma(space: Space, scores: int) -> str | None:
    """Return what to install where CMA-ES would be chosen."""
    if not _fits_cmaes(space, scores) or importlib.util.find_spec("cma"):
        return None
    return "CMA-ES would be chosen here, and needs cma: pip install 'warmkit[search]'"


def _strategy(given: str | None, space: Space, scores: int) -> str:
    fits = _fits_cmaes(space, scores)
    if given is None:
        return "cmaes" if fits and importlib.util.find_spec("cma") else "random" if space.size > 2 else "grid"
    if given not in STRATEGIES:
        raise UsageError(f"expected {', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}, found {given!r}")
    if given == "cmaes" and not fits:
        raise UsageError("cmaes searches at least two numbers of one method by one score; use --by random or --by grid")
    if given == "cmaes" and importlib.util.find_spec("cma") is None:
        raise UsageError("--by cmaes needs cma; install it: pip install 'warmkit[search]'")
    if given == "random" and not space.size:
        raise UsageError("--by random draws numbers, and none is searched; use --by grid")
    return given


def _proposals(strategy: str, space: Space, steps: int, seed: int) -> Proposals:
    if strategy == "cmaes":
        return _cmaes(space, seed)
    return _random(space, seed) if strategy == "random" else _grid(space, steps)


def _grid(space: Space, steps: int) -> Proposals:
    yield from space.grid(steps)


def _random(space: Space, seed: int) -> Proposals:
    draw = generator("searched candidates", seed)
    while True:
        candidate = space.at(draw.random(space.size).tolist(), space.methods[int(draw.integers(len(space.methods)))])
        if space.fits(candidate):
            yield candidate


def _cmaes(space: Space, seed: int) -> Proposals:
    """Yield what CMA-ES proposes within the unit cube, a population at a time.

    Source: Hansen, 2016, "The CMA evolution strategy: a tutorial"; the package `cma`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could not draw
        import cma
    draw = generator("searched candidates", seed)
    how = {"bounds": [0, 1], "verbose": -9, "seed": np.nan, "randn": lambda *shape: draw.standard_normal(shape)}
    strategy: Any = cma.CMAEvolutionStrategy(space.size * [0.5], SPREAD, how)
    while not strategy.stop():
        points = strategy.ask()
        costs: list[float] = []
        for point in points:
            candidate = space.at(np.clip(point, 0, 1).tolist(), space.methods[0])
            if space.fits(candidate):
                cost = yield candidate
                assert cost is not None
                costs.append(cost)
            else:
                costs.append(np.inf)
        strategy.tell(points, costs)


# ---- what was tried before ------------------------------------------------------------------------------------------


class _Journal:
    """File of what was tried, a line each; the first says what is searched."""

    def __init__(self, out: Path, described: Mapping[str, Any], identity: str) -> None:
        self.path = out / "search.jsonl"
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            if not self.path.exists() and any(out.iterdir()):
                raise OutputError(f"{out}: is there and holds no search; choose another -o")
            self._file = self.path.open("a+b")
        try:
            self._known = self._read(identity)
            if self._known is None:
                self._append({"search": identity, **described})
        except BaseException:
            self.close()
            raise

    def _read(self, identity: str) -> list[Tried] | None:
        """Return what was tried, None where nothing was begun; a last line that a kill cut short is taken off."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"{self.path.parent}: another search is working here") from None
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        if not whole:
            return None
        cure = f"delete {self.path.parent}, and everything is scored again"
        head, *rest = (parsed(line, f"{self.path}:{number}", cure) for number, line in enumerate(whole.splitlines(), 1))
        checked(head, {"search": is_text}, f"{self.path}:1", cure)
        if head["search"] != identity and not rest:  # nothing is lost
            self._file.truncate(0)
            return None
        if head["search"] != identity:
            raise OutputError(
                f"{self.path.parent}: holds a search of other models, ranges or scores; choose another -o, or delete it"
            )
        for number, line in enumerate(rest):
            if not TRIED(line) or line["number"] != number:
                raise FormatError(f"{self.path}:{number + 2}: is no candidate as warmkit writes it; {cure}")
        return [Tried(**line) for line in rest]

    def recorded(self, number: int, candidate: Candidate) -> Tried | None:
        """Return what is known of a candidate.

        Raises:
            ChangedError: If another one was tried in its place.
        """
        if number >= len(self._known or ()):
            return None
        assert self._known is not None
        if self._known[number].candidate != candidate:
            raise ChangedError(
                f"{self.path}: candidate {number} was {words(self._known[number].candidate)} and is {words(candidate)} now, "
                "perhaps of another version of cma or numpy; choose another -o"
            )
        return self._known[number]

    def add(self, one: Tried) -> None:
        """Keep what was found."""
        self._append(asdict(one))

    def _append(self, line: Mapping[str, Any]) -> None:
        with writing(self.path):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
