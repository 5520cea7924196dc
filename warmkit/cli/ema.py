"""`warmkit ema`."""

from __future__ import annotations

from warmkit.cli import completions, merged
from warmkit.cli.command import command, option
from warmkit.cli.console import Console, table
from warmkit.cli.shared_options import Models, OutputPath, Writing


@command(resumes=True)
def ema(
    console: Console,
    models: Models,
    output: OutputPath,
    writing: Writing,
    mu: float | None = option(
        None, "Update rate, from 0 (keep the first) to 1 (keep the last).", show_default="2/(T+1) of T checkpoints"
    ),
    sort: str = option(
        "given",
        "natural: step-200 before step-1000, whatever the order.",
        metavar="given|natural",
        autocompletion=completions.order,
    ),
) -> None:
    """Average checkpoints of one run exponentially, the oldest first: theta <- (1 - mu) theta + mu checkpoint.

    Examples:

    - `warmkit ema run/checkpoint-600 run/checkpoint-800 run/checkpoint-1000 -o OUT`
    - `warmkit ema --mu 0.1 --sort natural run/checkpoint-* -o OUT`
    """
    from warmkit.engine.spec import ema_spec
    from warmkit.verbs.merge import ema as ema_checkpoints
    from warmkit.verbs.ordering import in_order

    with console.progress("averaging") as advance:
        result = ema_checkpoints(models, output, mu=mu, sort=sort, **writing.keywords(), advance=advance)
    spec, names = ema_spec(len(models), mu), [str(each) for each in in_order(models, sort)]
    shares = spec.shares.tolist()
    merged.show(console, result, mu=spec.parameters["mu"], coefficients=[[*each] for each in zip(names, shares)])
    if not console.json:
        rows = [[name, f"{share:.4g}"] for name, share in zip(names, shares)]
        console.result(None, table(f"mu = {spec.parameters['mu']:.4g}", ["checkpoint", "coefficient"], rows))
