"""`warmkit ema`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from warmkit.cli import merged
from warmkit.cli.command import command
from warmkit.cli.console import Console
from warmkit.cli.options import Models, OutputPath, output_options, writing


@command(output_options)
def ema(
    console: Console,
    models: Models,
    output: OutputPath,
    mu: Annotated[float, typer.Option("--mu", help="Update rate, from 0 (keep the first) to 1 (keep the last).")] = 0.01,
    **options: Any,
) -> None:
    """Average checkpoints of one run exponentially, in the order given: theta <- (1 - mu) theta + mu checkpoint.

    Example:

    - `warmkit ema --mu 0.1 run/step-1000 run/step-2000 run/step-3000 -o OUT`
    """
    from warmkit.checkpoints.merge import ema as ema_checkpoints

    with console.progress("averaging") as advance:
        result = ema_checkpoints(models, output, mu=mu, **writing(options), advance=advance)
    merged.show(console, result)
