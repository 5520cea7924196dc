"""Run: python -m tests.fuzz --minutes 10 [--mutations 100000] [--seed 0] [--only NAME]

Prints how many mutations every reader was given, and what it did with them. Exit code 1 if one ended in a traceback, took more
than 5 s or 2 GB, or was read otherwise than its reference reader reads it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.cases import BAD, guarded, outcome
from tests.fuzz.readers import SHARES, readers

CASES = 25  # of one reader in a row


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--mutations", type=int, default=0, help="end after so many, 0 for never")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only")
    options = parser.parse_args()
    end, counts, shown, number = time.monotonic() + 60 * options.minutes, Counter[tuple[str, str]](), Counter[str](), 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, guarded():
        everything = readers(Path(folder))
        names = [name for name in everything if options.only in (None, name)]
        turn, done = 0, 0
        while time.monotonic() < end and not 0 < options.mutations <= done:
            turn += 1
            for name in names:
                reader = everything[name]
                for _ in range(max(1, round(CASES * SHARES[name]))):
                    number += 1
                    kind, said = outcome(reader, f"{options.seed}:{name}:{number}")
                    counts[name, kind] += 1
                    done += 1
                    if kind in BAD and shown[name] < 5:
                        shown[name] += 1
                        print(f"{name}: {kind}: seed {options.seed}:{name}:{number}: {said}", flush=True)
    kinds = ["read", "refused", "read alone", *BAD]
    print(f"| reader | mutations | {' | '.join(kinds)} |\n|---|{'---:|' * (1 + len(kinds))}")
    for name in [*names, "all"]:
        row = [sum(counts[each, kind] for each in (names if name == "all" else [name])) for kind in kinds]
        print(f"| {name} | {sum(row):,} | {' | '.join(f'{each:,}' for each in row)} |")
    return int(any(counts[name, kind] for name in names for kind in BAD))


if __name__ == "__main__":
    raise SystemExit(main())
