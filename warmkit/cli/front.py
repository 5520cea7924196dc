"""`warmkit front`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli import completions
from warmkit.cli.command import argument, command, option, required
from warmkit.cli.console import Console, interval, table
from warmkit.cli.output import PlottedDocument, check_picture, draw_picture
from warmkit.cli.policy_options import Judges, Samples, Sampling, open_candidate
from warmkit.cli.shared_options import given, numbers
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.evaluation.front import FrontPoint, Mix
    from warmkit.evaluation.policies import Candidate
    from warmkit.verbs.merger import Merger

ETAS = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]


@dataclass(eq=False, repr=False)
class Sweep:
    """What is merged, and at which update rates and mixes."""

    methods: list[str] | None = option(
        None,
        "Merge method; `warmkit methods` lists them. Repeatable, to compare several.",
        "--method",
        "-m",
        show_default="slerp; of one alone lerp",
        autocompletion=completions.method,
    )
    eta: str | None = option(None, "Update rates.", show_default="0,0.1,...,1; with several mixes 1")
    lambda_: str | None = option(None, "Of two policies, shares of the second: 0,0.25,0.5,0.75,1.")
    grid: int | None = option(None, "All mixes of the policies in steps of 1/N.", metavar="N", min=1)
    granularity: str | None = option(
        None,
        "What is merged as one vector, with one angle: each layer, each tensor, or the model.",
        show_default="layer",
        autocompletion=completions.granularity,
    )
    antiparallel: str | None = option(
        None,
        "Where task vectors are opposite: stop with an error, or use lerp.",
        show_default="error",
        autocompletion=completions.antiparallel,
    )

    def mixes(self, count: int) -> list[Mix]:
        """Return the shares of the policies to try.

        Raises:
            UsageError: If the options contradict each other, or the number of policies.
        """
        if self.lambda_ is not None and self.grid is not None:
            raise UsageError("--lambda and --grid both say what to mix; give one")
        if count == 1 and (self.lambda_ or self.grid):
            raise UsageError(f"{'--lambda' if self.lambda_ else '--grid'} mixes policies: give at least two")
        if self.grid is not None:
            from warmkit.evaluation.front import simplex

            return [*simplex(count, self.grid)]
        shares = numbers(self.lambda_, "--lambda")
        if shares is None:
            return [None]
        if count != 2:
            raise UsageError(f"--lambda is the share of the second of two policies; for {count} policies use --grid")
        return [[1 - share, share] for share in shares]

    def mergers(self, init: str, policies: Sequence[str]) -> dict[str, Merger]:
        """Open the inputs of every method."""
        from warmkit.evaluation.front import open_mergers

        methods = self.methods or ["slerp" if len(policies) > 1 else "lerp"]
        return open_mergers(
            init, policies, methods, **given({"granularity": self.granularity, "antiparallel": self.antiparallel})
        )


@dataclass(eq=False, repr=False)
class FrontFiles(PlottedDocument):
    """What is written beside what is printed."""

    plot: Path | None = option(None, "Draw rewards against the KL.")
    plot_rewards: Path | None = option(None, "Draw each reward or control against the others.")

    def check(self, *beside: Path | None) -> None:
        """Refuse also the second picture."""
        check_picture(self.plot_rewards, "--plot-rewards")
        super().check(*beside)

    def draw(self, console: Console, document: dict[str, Any], policies: list[str]) -> None:
        """Draw the pictures that were asked for."""
        from warmkit.report.html_page import charts_in
        from warmkit.report.runs.fronts import front_charts, reward_charts

        fronts = document["fronts"]
        draw_picture(console, lambda: charts_in(front_charts(fronts, document["trajectories"])), self.plot)
        draw_picture(console, lambda: reward_charts(fronts, policies), self.plot_rewards)


@command(needs_transformers=True)
def front(
    console: Console,
    *,
    policies: list[str] = argument("POLICY", "Directories or Hub repositories; one alone, or several to merge."),
    init: str = required("What the policies were fine-tuned from.", show_default=False),
    sweep: Sweep,
    judges: Judges,
    sampling: Sampling,
    files: FrontFiles,
    sft: str | None = option(None, "The model that the KL is reported to.", show_default="the recipe's, or --init"),
    samples: Samples = 1,
    run: list[Path] | None = option(None, "Training run to draw beside the front. Repeatable.", metavar="RUN"),
) -> None:
    """Merge policies at many update rates or mixes, all in memory, and measure reward and KL of each on the same prompts.

    An eta slides from the init (0) to the merge (1): LITI. A lambda slides from the first policy to the second, a grid covers
    all mixes; of policies trained on different rewards, `--method lerp` makes rewarded soups. Every point is one evaluation.

    Examples:

    - `warmkit front --init SFT runs/a/model runs/b/model --recipe policy.yaml --run runs/a --run runs/b --plot front.png`
    - `warmkit front --init SFT A B --prompts held-out.jsonl --reward RM --method slerp --method lerp -o front.json`
    - `warmkit front --init SFT A B --prompts p.jsonl --reward RM --lambda 0,0.25,0.5,0.75,1 --eta 1`
    - `warmkit front --init SFT A B -m lerp --grid 10 --prompts p.jsonl --reward a=RM1 --reward b=RM2 --plot-rewards soup.png`
    """
    from warmkit.evaluation.front import check_sweep, count_evaluations
    from warmkit.evaluation.policies import PolicyTrial
    from warmkit.evaluation.side_by_side import short_names

    how = sampling.settings(samples, judges, sft or (init if sampling.recipe is None else None))
    files.check()
    if files.plot_rewards is not None and len(how.rewards) + len(how.controls) < 2:
        raise UsageError("--plot-rewards draws one reward against another: give two of --reward or --control")
    names, mixes = short_names(policies), sweep.mixes(len(policies))
    etas = numbers(sweep.eta, "--eta") or (ETAS if mixes == [None] else [1.0])
    trajectories = _trajectories(console, run or [])
    mergers = sweep.mergers(init, policies)
    for merger in mergers.values():
        check_sweep(merger, etas, mixes)
    candidate = open_candidate(console, PolicyTrial(how), init)
    fronts = _measured(console, candidate, mergers, etas, mixes)
    document: dict[str, Any] = {
        "init": init,
        "policies": dict(zip(names, policies)),
        "settings": {key: value for key, value in asdict(how).items() if value not in (None, [])},
        "prompts": len(candidate.data),
        "ends": candidate.ends,
        "evaluations": len(mergers) * count_evaluations(etas, mixes),
        "fronts": {name: [point.to_dict() for point in points] for name, points in fronts.items()},
        "best": _best(fronts),
        "trajectories": trajectories,
    }
    files.draw(console, document, names)
    files.write(document)
    title = (
        f"{' and '.join(names)} from {init}; the KL is to {how.sft}, intervals are of 95% over {len(candidate.data)} prompts"
    )
    console.result(document, table(title, *_table(fronts)), _sentence(document["best"], len(fronts) > 1))


def _measured(
    console: Console, candidate: Candidate, mergers: dict[str, Merger], etas: Sequence[float], mixes: Sequence[Mix]
) -> dict[str, list[FrontPoint]]:
    """Evaluate every point of every method's front."""
    from warmkit.evaluation.front import count_evaluations, sweep

    total = len(mergers) * count_evaluations(etas, mixes)
    with console.progress("evaluating", unit="policies") as advance:
        advance(0, total)
        return {
            name: sweep(candidate, merger, etas, mixes, lambda done, _: advance(done, total))
            for name, merger in mergers.items()
        }


def _trajectories(console: Console, runs: Sequence[Path]) -> dict[str, list[dict[str, float]]]:
    from warmkit.evaluation.front import evaluations, trajectory
    from warmkit.evaluation.side_by_side import short_names

    found: dict[str, list[dict[str, float]]] = {}
    for name, path in zip(short_names([str(run) for run in runs]) if runs else [], runs):
        found[name] = trajectory(path)
        if not evaluations(path):
            console.note(f"{path}: not evaluated on the way (policy.evaluate_every); its trajectory is of training batches")
    return found


def _best(fronts: dict[str, list[FrontPoint]]) -> dict[str, Any]:
    from warmkit.evaluation.front import best

    tops = {name: best(points) for name, points in fronts.items()}
    name = max(tops, key=lambda each: tops[each].values["reward"].value)
    return {"method": name, **tops[name].to_dict()}


def _sentence(top: dict[str, Any], several: bool) -> str:
    mix = f", {_share(top['coefficients'])}" if top["coefficients"] else ""
    place = f"{top['method'] + ', ' if several else ''}eta {top['eta']:g}{mix}"
    return (
        f"Highest mean reward: {interval(top['values']['reward'], '.3g')} at {place}; KL {top['values']['kl_sft']['value']:.3g}"
    )


def _table(fronts: dict[str, list[FrontPoint]]) -> tuple[list[str], list[list[str]]]:
    first = next(iter(fronts.values()))[0]
    terms = [name for name in first.values if name.startswith("reward_")]
    shown = [*(terms if len(terms) > 1 else []), *(name for name in first.values if name.startswith("control_"))]
    mixed, several = first.coefficients is not None, len(fronts) > 1
    columns = [*(["method"] if several else []), "eta", *(["mix"] if mixed else []), "reward (95%)"]
    columns += [*(f"{name.replace('_', ' ', 1)} (95%)" for name in shown), "KL (95%)", "length"]
    rows = [
        [
            *([method] if several else []),
            f"{point.eta:g}",
            *([_share(point.coefficients or [])] if mixed else []),
            *(interval(vars(point.values[name]), ".3g") for name in ("reward", *shown, "kl_sft")),
            f"{point.values['length'].value:.1f}",
        ]
        for method, points in fronts.items()
        for point in points
    ]
    return columns, rows


def _share(coefficients: Sequence[float]) -> str:
    """Write a mix: of two policies by lambda, else by all shares."""
    if len(coefficients) == 2:
        return f"lambda {coefficients[1]:.3g}"
    return " / ".join(f"{each:.3g}" for each in coefficients)
