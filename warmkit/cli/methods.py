"""`warmkit methods`."""

from __future__ import annotations

from warmkit.cli.command import command
from warmkit.cli.console import Console, table


@command()
def methods(console: Console) -> None:
    """List the merge methods."""
    from warmkit.merging.methods import METHODS

    own = {method.name: {each.name: each.default for each in method.parameters} for method in METHODS.values()}
    rows = [
        [method.name, method.summary, "yes" if method.needs_init else "no", method.space, method.mix, method.paper]
        for method in METHODS.values()
    ]
    parameters = [[name, ", ".join(f"{key} {value}" for key, value in each.items())] for name, each in own.items() if each]
    document = [
        {
            "name": method.name,
            "summary": method.summary,
            "needs_init": method.needs_init,
            "angles_of": method.space,
            "coefficients": method.mix,
            "fewest_models": method.fewest,
            "paper": method.paper,
            "parameters": own[method.name],
        }
        for method in METHODS.values()
    ]
    columns = ["method", "what it does", "needs init", "reads angles of", "coefficients", "source"]
    more = "Also: warmkit liti (towards the init), warmkit soup --greedy, warmkit ema."
    console.result(
        document, table(None, columns, rows), table(None, ["method", "parameters and their defaults"], parameters), more
    )
