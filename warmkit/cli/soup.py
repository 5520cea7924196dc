"""`warmkit soup`."""

from __future__ import annotations

from warmkit.cli import merged
from warmkit.cli.command import command, option
from warmkit.cli.console import Console, table
from warmkit.cli.shared_options import Models, OutputPath, Writing, given
from warmkit.errors import UsageError


@command(resumes=True)
def soup(
    console: Console,
    models: Models,
    output: OutputPath,
    writing: Writing,
    greedy: bool = option(False, "Choose the members by a held-out score."),
    score: str | None = option(None, "Command that prints a model's score on its last line; {} is its directory."),
    minimize: bool = option(False, "The score is a loss."),
) -> None:
    """Average models uniformly, or choose greedily which ones to average.

    Greedy: models are sorted by their score; each stays if the soup with it scores no worse than the soup without it.

    Examples:

    - `warmkit soup A B C -o OUT`
    - `warmkit soup --greedy --score 'python evaluate.py {}' A B C -o OUT`
    """
    if not greedy:
        if score is not None or minimize:
            raise UsageError("--score and --minimize choose members, so they go with --greedy")
        from warmkit.verbs.merge import soup as uniform_soup

        with console.progress("averaging") as advance:
            result = uniform_soup(models, output, **writing.keywords(), advance=advance)
        merged.show(console, result)
        return
    if score is None:
        raise UsageError("--greedy needs --score 'COMMAND {}', which prints a number for the model directory {}")
    from warmkit.verbs.greedy_soup import greedy_soup

    with console.progress("scoring", unit="candidates") as advance:
        chosen = greedy_soup(
            models, output, score=score, minimize=minimize, report=console.say, advance=advance, **given(vars(writing))
        )
    rows = [[trial.name, f"{trial.score:.6g}", "stays" if trial.stays else "left out"] for trial in chosen.trials]
    merged.show(console, chosen.result, trials=[vars(trial) for trial in chosen.trials], members=chosen.members)
    if not console.json:
        title = "soup after adding; this score chose it, so report another"
        console.result(None, table(title, ["model", "score", ""], rows))
