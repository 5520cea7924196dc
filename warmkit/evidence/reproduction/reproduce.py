"""Reproduce claims on several seeds, in processes that share what a seed's claims have in common."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from warmkit.common.json_files import dump_json
from warmkit.common.progress import Advance
from warmkit.common.records import parsed
from warmkit.common.whole_files import write_whole, writing
from warmkit.engine.devices import cores
from warmkit.errors import OutputError, TrainingError, WarmkitError, listed
from warmkit.evidence.reproduction.claim_recipe import FOLDER
from warmkit.evidence.reproduction.claim_table import CLAIMS
from warmkit.evidence.reproduction.claim_units import Unit, differences
from warmkit.evidence.reproduction.seed_file import Document, read_seed, text_of
from warmkit.evidence.testbed.sizes import Size
from warmkit.evidence.workers import ENDED, workers

ABOUT = "reproduction.json"


def reproduce(
    claims: Sequence[str],
    folder: Path,
    *,
    size: Size = "small",
    seeds: Sequence[int] = (0,),
    jobs: int | None = None,
    fresh: bool = False,
    recipes: Path = FOLDER,
    advance: Advance | None = None,
) -> list[dict[str, Any]]:
    """Measure claims on several seeds, or go on where a killed reproduction stopped.

        FOLDER/seed-3.jsonl       a seed that is done: numbers and points of its claims, in one small file
        FOLDER/seed-3/...         its data and models; its claims, until all that were asked for are measured

    Every process computes with one thread, so that the numbers depend on the seed alone and not on how many work.

    Args:
        claims: Names in `table.CLAIMS`.
        folder: Where everything goes; one size each.
        size: Of the testbed.
        seeds: Of the testbed.
        jobs: Processes at a time; by default one a core.
        fresh: Measure again what was measured with other settings.
        recipes: Folder of the recipes.
        advance: Called with the claims done since the last call, and the total.

    Returns:
        A document for every claim and seed; see `seed_file`.

    Raises:
        OutputError: If the folder holds something else, another size, or results of other settings.
        TrainingError: If a process ended without a result; what is finished stays.
    """
    units = units_of(claims, folder, size, seeds, recipes)
    with _working_in(folder, size):
        for seed in seeds:
            _enter_seed([unit for unit in units if unit.seed == seed], fresh)
        waiting = [unit for unit in units if unit.known() is None]
        tick, left = advance or (lambda done, total: None), Counter(unit.seed for unit in waiting)
        tick(len(units) - len(waiting), len(units))
        for unit in {unit.seed: unit for unit in units if not left[unit.seed] and unit.file.parent.exists()}.values():
            _keep_seed(unit, _kept_of(unit))  # a kill came between the last claim and this

        def done(unit: Unit, measured: bool) -> None:
            left[unit.seed] -= measured
            if not left[unit.seed]:
                _keep_seed(unit, _kept_of(unit))
            tick(1, len(units))

        if waiting:
            _measure(waiting, min(jobs or cores(), len(waiting)), done)
    return [document for unit in units if (document := unit.known()) is not None]


def units_of(claims: Sequence[str], folder: Path, size: Size, seeds: Sequence[int], recipes: Path = FOLDER) -> list[Unit]:
    """Return the work, seed after seed, in an order in which processes seldom wait for each other: both papers in turn.

    The claim with a language of its own comes second: its SFT model is made while the first claim makes the other one.
    """
    half = (len(claims) + 1) // 2
    second = sorted(claims[half:], key=lambda claim: claim != "warp-length")
    turns = [each for pair in zip(claims[:half], [*second, None]) for each in pair if each is not None]
    return [Unit(claim, seed, size, folder, recipes) for seed in seeds for claim in turns]


@contextlib.contextmanager
def _working_in(folder: Path, size: Size) -> Generator[None]:
    """Mark the folder as a reproduction of one size, and lock it as long as the block runs."""
    mark, content = folder / ABOUT, dump_json({"size": size})
    with writing(folder):
        if mark.exists():
            if mark.read_bytes() != content:
                raise OutputError(f"{folder}: holds a reproduction of another size than {size}; give another --output")
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder}: holds something that is no reproduction; give another --output")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(mark, content)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise OutputError(f"{folder}: another warmkit is working here") from None
    try:
        yield
    finally:
        os.close(lock)


def _enter_seed(units: Sequence[Unit], fresh: bool) -> None:
    """Refuse, or clear away, what was made or measured with other settings."""
    first, testbed = units[0], units[0].testbed()
    other = differences(_testbed_of(first), testbed, "testbed")
    changed = {unit: found for unit in units if (found := unit.changed())}
    if other or changed:
        if not fresh:
            where, found = (first.seed_folder, other) if other else next(iter(changed.items()))
            raise OutputError(
                f"{where}: made with another recipe ({'; '.join(found[:3])}); "
                "give another --output, or --fresh to measure again"
            )
        _clear(first, list(CLAIMS) if other else [unit.claim for unit in changed])
    first.seed_folder.mkdir(parents=True, exist_ok=True)
    write_whole(first.seed_folder / "testbed.json", dump_json(testbed))


def _testbed_of(unit: Unit) -> Any:
    """Return what decided the data and models of a seed that were made before, or what decides them now."""
    mark = unit.seed_folder / "testbed.json"
    if mark.exists():
        return parsed(mark.read_bytes(), mark, "--fresh measures the seed again")
    kept = read_seed(unit.seed_file) if unit.seed_file.exists() else []
    return kept[0]["setting"]["testbed"] if kept else unit.testbed()


def _clear(unit: Unit, claims: Sequence[str]) -> None:
    """Delete data and models of a seed, which claims share, and what was measured for some claims."""
    _keep_seed(unit, [each for each in _kept_of(unit) if each["claim"] not in claims])
    if unit.seed_folder.exists():
        shutil.rmtree(unit.seed_folder)


def _kept_of(unit: Unit) -> list[Document]:
    """Return everything that is known of a unit's seed, in the order of the table."""
    files = [*([unit.seed_file] if unit.seed_file.exists() else []), *unit.file.parent.glob("*.jsonl")]
    known = {each["claim"]: each for file in files for each in read_seed(file)}
    return [known[claim] for claim in CLAIMS if claim in known]


def _keep_seed(unit: Unit, documents: Sequence[Document]) -> None:
    """Put what is known of a seed into its one file."""
    if documents:
        write_whole(unit.seed_file, text_of(documents).encode())
    else:
        unit.seed_file.unlink(missing_ok=True)
    shutil.rmtree(unit.file.parent, ignore_errors=True)


def _measure(units: Sequence[Unit], jobs: int, done: Callable[[Unit, bool], None]) -> None:
    failed: list[str] = []
    with workers(jobs) as pool:
        running = {pool.submit(unit.measure): unit for unit in units}
        for future in as_completed(running):
            unit, measured = running[future], False
            try:
                future.result()
                measured = True
            except BrokenProcessPool:
                raise TrainingError(ENDED) from None
            except WarmkitError as error:
                failed.append(f"{unit.claim}, seed {unit.seed}: {error}")
            done(unit, measured)
    if failed:
        raise TrainingError(f"{len(failed)} of {len(units)} were not measured; the others stay:\n{listed(failed)}")
