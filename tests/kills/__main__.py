"""Kill commands and give them again.

python -m tests.kills --merges 900 --trainings 100 --folder /tmp/kills

After each kill: the inputs, and what was at OUT before, have the bytes they had; no process lives on; the same command ends in
the bytes of a run that was not killed; nothing is left beside them. A run that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.kills.cases import MERGES, TRAININGS, Case, clear, content
from tests.kills.victim import Clock, ended, left, start

PATIENCE = 300.0  # seconds for a run that is not killed


@dataclass
class Bench:
    """A command with its inputs, and what a run of it that is not killed writes and takes."""

    case: Case
    folder: Path
    arguments: list[str]
    inputs: dict[str, bytes]
    wanted: dict[str, bytes]
    events: int
    seconds: float

    @property
    def out(self) -> Path:
        return self.folder / "out"


def run(arguments: list[str], folder: Path, mark: str = "whole") -> tuple[int | None, str, int, float]:
    """Run a command to its end; return its exit code, words, changes of the file system and seconds."""
    said, began = folder.parent / f"{folder.name}.said", time.monotonic()
    code = ended(start(arguments, folder, said, mark, Clock()), PATIENCE)
    count = Path(f"{said}.count")
    return code, said.read_text(errors="replace"), int(count.read_text()) if count.exists() else 0, time.monotonic() - began


def prepare(case: Case, place: Path) -> Bench:
    """Make the inputs of a case, run it twice, and remember the second run: the first may compile."""
    folder = place / case.name.replace(" ", "-").replace(",", "")
    clear(folder)
    folder.mkdir(parents=True)
    arguments = case.make(folder)
    events, seconds = 0, 0.0
    for _ in range(2):
        clear(folder / "out")
        if case.earlier is not None:
            case.earlier(folder / "out")
        code, said, events, seconds = run(arguments, folder)
        if code != 0:
            sys.exit(f"{case.name}: exits with {code} when it is not killed: {said[-2000:]}")
    return Bench(
        case, folder, arguments, content(folder / "in", False), content(folder / "out", case.training), events, seconds
    )


def kill(bench: Bench, draw: random.Random, mark: str) -> dict[str, Any]:
    """Kill the command once, give it again, and return what was found."""
    case, out = bench.case, bench.out
    clear(out)
    before: dict[str, bytes] | None = None
    if case.earlier is not None:
        case.earlier(out)
        before = content(out, False)
    how = draw.choice(["call", "call", "time", "term"])
    last = draw.randint(1, bench.events) if how == "call" else None
    said = bench.folder.parent / f"{bench.folder.name}.said"
    victim = start(bench.arguments, bench.folder, said, mark, Clock(last))
    if how != "call":
        time.sleep(draw.uniform(0, 1) * bench.seconds)
        os.kill(victim, signal.SIGTERM if how == "term" else signal.SIGKILL)
    code = ended(victim, PATIENCE)
    found: dict[str, Any] = {"case": case.name, "how": how, "at": last, "of": bench.events, "code": code, "faults": []}
    faults: list[str] = found["faults"]
    if code is None:
        os.kill(victim, signal.SIGKILL)
        ended(victim, 10)
        faults.append("hangs")
    if processes := left(mark, 20):
        faults.append(f"{len(processes)} processes live on")
    if content(bench.folder / "in", False) != bench.inputs:
        faults.append("inputs changed")
    complete = out.exists() and content(out, case.training) == bench.wanted
    if not case.training:
        whole = complete or (content(out, False) == before if out.exists() else before is None)
        if not whole:
            faults.append("OUT is neither what it was nor complete")
    again, words, *_ = run(bench.arguments, bench.folder)
    found["complete"], found["again"] = complete, again
    if again != 0 and not (complete and "already exists" in words):
        faults.append(f"the same command exits with {again}: {words[-300:]}")
    elif not out.exists() or content(out, case.training) != bench.wanted:
        faults.append("other bytes than a run that was not killed")
    remains = sorted({path.name for path in bench.folder.iterdir()} - {"in", "out"})
    if remains:
        faults.append(f"left: {', '.join(remains)}")
        for name in remains:
            clear(bench.folder / name)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Return a line a command: kills by kind, how many left a complete result, faults."""
    lines = [f"{'command':24}{'kills':>7}{'calls':>7}{'times':>7}{'terms':>7}{'after the end':>15}{'faults':>8}"]
    for name in dict.fromkeys(each["case"] for each in found):
        rows = [each for each in found if each["case"] == name]
        how = Counter(each["how"] for each in rows)
        late, faults = sum(each["complete"] for each in rows), sum(map(bool, (each["faults"] for each in rows)))
        lines.append(f"{name:24}{len(rows):7}{how['call']:7}{how['time']:7}{how['term']:7}{late:15}{faults:8}")
    faults = sum(bool(each["faults"]) for each in found)
    return "\n".join([*lines, f"{'together':24}{len(found):7}{'':21}{'':15}{faults:8}"])


def go(cases: tuple[Case, ...], count: int, place: Path, seed: int, record: Path) -> list[dict[str, Any]]:
    """Kill until there are so many in the record, each case in its turn; print every fault, and the table now and then."""
    known = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    names = {case.name for case in cases}
    found = [each for each in known if each["case"] in names]
    benches: dict[str, Bench] = {}
    while len(found) < count:
        number = len(found)
        case = cases[number % len(cases)]
        if case.name not in benches:
            benches[case.name] = prepare(case, place)
        one = kill(benches[case.name], random.Random(f"{seed} {cases[0].name} {number}"), f"{os.getpid()}-{number}")
        found.append(one)
        with record.open("a") as file:
            file.write(json.dumps(one) + "\n")
        if one["faults"]:
            print(f"FAULT {one}", flush=True)
        if len(found) % 50 == 0 or len(found) == count:
            print(table(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kills")
    parser.add_argument("--merges", type=int, default=9)
    parser.add_argument("--trainings", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("kills"), help="Of inputs, outputs and the record.")
    given = parser.parse_args()
    place = given.folder.absolute()
    place.mkdir(parents=True, exist_ok=True)
    (place / "temporary").mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(place / "temporary")
    from warmkit.engine import sink

    sink.FLUSH_BYTES = 1 << 17  # journals often, so that models of this size leave something to go on from
    found = go(MERGES, given.merges, place, given.seed, place / "record.jsonl")
    if given.trainings:
        import transformers  # noqa: F401  (what takes long is imported once)

        import warmkit.evaluation.policies
        import warmkit.pipelines.warm
        import warmkit.pipelines.warp  # noqa: F401

        found += go(TRAININGS, given.trainings, place, given.seed, place / "record.jsonl")
    if any(each["faults"] for each in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
