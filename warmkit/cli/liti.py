"""`warmkit liti`."""

from __future__ import annotations

from warmkit.cli import merged
from warmkit.cli.command import argument, command, option, required
from warmkit.cli.console import Console
from warmkit.cli.shared_options import OutputPath, Writing, etas


@command(resumes=True)
def liti(
    console: Console,
    *,
    model: str = argument("MODEL", "Directory, .safetensors file or Hub repository."),
    output: OutputPath,
    writing: Writing,
    init: str = required("What the model was fine-tuned from.", show_default=False),
    eta: str = option("0.3", "Update rate; several (0,0.3,1) write OUT/eta-0, OUT/eta-0.3, ... at once."),
) -> None:
    """Interpolate a model towards its initialisation: (1 - eta) init + eta model.

    Examples:

    - `warmkit liti --init SFT MODEL --eta 0.3 -o OUT`
    - `warmkit liti --init SFT MODEL --eta 0,0.1,0.3,0.5,0.8,1.0,1.2 -o SWEEP`, reading the inputs once
    """
    from warmkit.verbs.merge import liti as liti_checkpoints

    rates = etas(eta)
    assert rates is not None
    with console.progress("interpolating") as advance:
        result = liti_checkpoints(model, output, init=init, eta=rates, **writing.keywords(), advance=advance)
    merged.show(console, result)
