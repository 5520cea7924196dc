"""`warmkit corrupt`."""

from __future__ import annotations

from pathlib import Path

from warmkit.cli.command import argument, command, option, required
from warmkit.cli.console import Console


@command()
def corrupt(
    console: Console,
    data: str = argument("DATA", ".jsonl or .parquet file, or data set (name:split)."),
    output: Path = required("JSON lines file to create.", "--output", "-o", show_default=False),
    rate: float = required("Share of the pairs to swap, 0 to 1.", show_default=False),
    seed: int = option(0, "Seed of the draw."),
    force: bool = option(False, "Replace a file at OUT, in one step at the end."),
) -> None:
    """Swap chosen and rejected in a share of preference pairs, to measure what label noise does.

    Examples:

    - `warmkit corrupt pairs.jsonl -o noisy.jsonl --rate 0.25 --seed 0`
    - `warmkit corrupt allenai/reward-bench:filtered -o noisy.jsonl --rate 0.25`
    """
    from warmkit.data.corruption import corrupt as corrupt_pairs
    from warmkit.data.preferences import read_pairs, write_pairs

    pairs = read_pairs(data)
    noisy = corrupt_pairs(pairs, rate, seed)
    write_pairs(noisy, output, force)
    swapped = sum(before.corrupt != after.corrupt for before, after in zip(pairs, noisy))
    marked = sum(pair.corrupt for pair in noisy)
    document = {"path": str(output), "pairs": len(noisy), "swapped": swapped, "corrupt": marked, "rate": rate, "seed": seed}
    console.result(document, f"{output}: {swapped} of {len(noisy)} pairs swapped")
