"""`warmkit front`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli import completions
from warmkit.cli import policy_options as options
from warmkit.cli.command import command
from warmkit.cli.console import Console, table
from warmkit.cli.output import DocumentPath, check_picture, draw_picture, refuse_existing, write_document
from warmkit.cli.shared_options import given, numbers
from warmkit.cli.train import need_transformers
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.evaluation.front import FrontPoint, Mix
    from warmkit.evaluation.policies import EvaluationSettings

ETAS = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
Policies = Annotated[
    list[str], typer.Argument(metavar="POLICY", help="Directories or Hub repositories; one alone, or several to merge.")
]


@command()
def front(
    console: Console,
    policies: Policies,
    init: Annotated[str, typer.Option("--init", help="What the policies were fine-tuned from.", show_default=False)],
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="Merge method; `warmkit methods` lists them. Repeatable, to compare several.",
            show_default="slerp; of one alone lerp",
            autocompletion=completions.method,
        ),
    ] = None,
    eta: Annotated[
        str | None, typer.Option("--eta", help="Update rates.", show_default="0,0.1,...,1; with several mixes 1")
    ] = None,
    lambda_: Annotated[
        str | None, typer.Option("--lambda", help="Of two policies, shares of the second: 0,0.25,0.5,0.75,1.")
    ] = None,
    grid: Annotated[
        int | None, typer.Option("--grid", metavar="N", min=1, help="All mixes of the policies in steps of 1/N.")
    ] = None,
    granularity: Annotated[
        str | None,
        typer.Option(
            "--granularity",
            help="What is merged as one vector, with one angle: each layer, each tensor, or the model.",
            show_default="layer",
            autocompletion=completions.granularity,
        ),
    ] = None,
    antiparallel: Annotated[
        str | None,
        typer.Option(
            "--antiparallel",
            help="Where task vectors are opposite: stop with an error, or use lerp.",
            show_default="error",
            autocompletion=completions.antiparallel,
        ),
    ] = None,
    prompts: options.PromptFile = None,
    reward: options.Rewards = None,
    control: options.Controls = None,
    recipe: options.Like = None,
    sft: Annotated[
        str | None, typer.Option("--sft", help="The model that the KL is reported to.", show_default="the recipe's, or --init")
    ] = None,
    samples: options.Samples = 1,
    temperature: options.Temperature = None,
    max_new_tokens: options.NewTokens = None,
    stop: options.Stop = None,
    chat: options.AsChats = False,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 64,
    run: Annotated[
        list[Path] | None, typer.Option("--run", metavar="RUN", help="Training run to draw beside the front. Repeatable.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw rewards against the KL.")] = None,
    plot_rewards: Annotated[
        Path | None, typer.Option("--plot-rewards", help="Draw each reward or control against the others.")
    ] = None,
    output: DocumentPath = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file at OUT.")] = False,
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
    need_transformers()
    from dataclasses import asdict

    from warmkit.evaluation.front import check_sweep, count_evaluations, open_mergers, sweep
    from warmkit.evaluation.policies import PolicyTrial
    from warmkit.evaluation.side_by_side import short_names
    from warmkit.report.html_page import charts_in
    from warmkit.report.runs.fronts import front_charts, reward_charts

    how = options.evaluation_settings(
        recipe,
        prompts=prompts,
        rewards=reward,
        controls=control,
        sft=sft or (init if recipe is None else None),
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        samples=samples,
        seed=seed,
        batch_size=batch_size,
        stop=stop,
        chat=chat,
    )
    check_picture(plot)
    check_picture(plot_rewards, "--plot-rewards")
    refuse_existing([output], force)
    _check_rewards(how, plot_rewards)
    names, mixes = short_names(policies), _mixes(len(policies), lambda_, grid)
    etas = numbers(eta, "--eta") or (ETAS if mixes == [None] else [1.0])
    methods = method or ["slerp" if len(policies) > 1 else "lerp"]
    trajectories = _trajectories(console, run or [])
    mergers = open_mergers(init, policies, methods, **given({"granularity": granularity, "antiparallel": antiparallel}))
    for merger in mergers.values():
        check_sweep(merger, etas, mixes)
    candidate = options.open_candidate(console, PolicyTrial(how), init)
    total = len(mergers) * count_evaluations(etas, mixes)
    fronts: dict[str, list[FrontPoint]] = {}
    with console.progress("evaluating", unit="policies") as advance:
        tick = (lambda done, _: advance(done, total)) if advance else (lambda done, _: None)
        tick(0, total)
        for name, merger in mergers.items():
            fronts[name] = sweep(candidate, merger, etas, mixes, tick)
    document: dict[str, Any] = {
        "init": init,
        "policies": dict(zip(names, policies)),
        "settings": {key: value for key, value in asdict(how).items() if value not in (None, [])},
        "prompts": len(candidate.data),
        "ends": candidate.ends,
        "evaluations": total,
        "fronts": {name: [point.to_dict() for point in points] for name, points in fronts.items()},
        "best": _best(fronts),
        "trajectories": trajectories,
    }
    draw_picture(console, lambda: charts_in(front_charts(document["fronts"], trajectories)), plot)
    draw_picture(console, lambda: reward_charts(document["fronts"], names), plot_rewards)
    write_document(output, document)
    title = (
        f"{' and '.join(names)} from {init}; the KL is to {how.sft}, intervals are of 95% over {len(candidate.data)} prompts"
    )
    console.result(document, table(title, *_table(fronts)), _sentence(document["best"], len(fronts) > 1))


def _check_rewards(how: EvaluationSettings, plot_rewards: Path | None) -> None:
    if plot_rewards is not None and len(how.rewards) + len(how.controls) < 2:
        raise UsageError("--plot-rewards draws one reward against another: give two of --reward or --control")


def _mixes(count: int, lambda_: str | None, grid: int | None) -> list[Mix]:
    """Return the shares of the policies to try."""
    if lambda_ is not None and grid is not None:
        raise UsageError("--lambda and --grid both say what to mix; give one")
    if count == 1 and (lambda_ or grid):
        raise UsageError(f"{'--lambda' if lambda_ else '--grid'} mixes policies: give at least two")
    if grid is not None:
        from warmkit.evaluation.front import simplex

        return [*simplex(count, grid)]
    shares = numbers(lambda_, "--lambda")
    if shares is None:
        return [None]
    if count != 2:
        raise UsageError(f"--lambda is the share of the second of two policies; for {count} policies use --grid")
    return [[1 - share, share] for share in shares]


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
    return f"Highest mean reward: {_span(top['values']['reward'])} at {place}; KL {top['values']['kl_sft']['value']:.3g}"


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
            *(_span(vars(point.values[name])) for name in ("reward", *shown, "kl_sft")),
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


def _span(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3g} ({estimate['low']:.3g} to {estimate['high']:.3g})"
