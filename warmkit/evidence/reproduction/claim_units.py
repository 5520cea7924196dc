"""One claim on one seed: measured once, kept in a file that says how, and measured again only on demand."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit._version import __version__
from warmkit.common.json_files import dump_json
from warmkit.common.whole_files import write_whole
from warmkit.evidence.reproduction.claim_recipe import FOLDER, read_claim, read_testbed
from warmkit.evidence.reproduction.claim_table import CLAIMS
from warmkit.evidence.reproduction.seed_file import Document, read_seed, text_of
from warmkit.evidence.testbed.language import VERSION
from warmkit.evidence.testbed.sizes import Size
from warmkit.recipes.recipe import plain


@dataclass(frozen=True)
class Unit:
    """A claim on a seed.

    Attributes:
        claim: Name of the claim.
        seed: Of the testbed.
        size: Of the testbed.
        folder: Of the reproduction.
        recipes: Folder of the recipes.
    """

    claim: str
    seed: int
    size: Size
    folder: Path
    recipes: Path = FOLDER

    @property
    def seed_folder(self) -> Path:
        return self.folder / f"seed-{self.seed}"

    @property
    def file(self) -> Path:
        """Where the claim is kept until its seed is done."""
        return self.seed_folder / "claims" / f"{self.claim}.jsonl"

    @property
    def seed_file(self) -> Path:
        """Where all claims of a seed are kept when it is done."""
        return self.folder / f"seed-{self.seed}.jsonl"

    def testbed(self) -> dict[str, Any]:
        """Return what decides what the seed's data and models are, as JSON holds it."""
        return json.loads(dump_json({"version": VERSION, **plain(read_testbed(self.size, self.recipes))}))

    def setting(self) -> dict[str, Any]:
        """Return everything that decides what is measured, as JSON holds it."""
        recipe = read_claim(self.claim, self.recipes)
        return {"testbed": self.testbed(), "claim": json.loads(dump_json(plain(getattr(recipe, self.size))))}

    def changed(self) -> list[str]:
        """Name what is not as it was when the claim was measured: settings, numbers that are wanted; none where it was not."""
        known = self.known()
        if known is None:
            return []
        wanted = {each.number for each in read_claim(self.claim, self.recipes).statements}
        missing = [f"{number} was not measured" for number in sorted(wanted - known["numbers"].keys())]
        return differences(known["setting"], self.setting()) + missing

    def known(self) -> Document | None:
        """Return what was measured before, with these settings or others."""
        files = [file for file in (self.file, self.seed_file) if file.exists()]
        return next((each for file in files for each in read_seed(file) if each["claim"] == self.claim), None)

    def measure(self) -> Document:
        """Measure the claim, or return what was measured before."""
        if (known := self.known()) is not None:
            return known
        from warmkit.evidence.testbed.bed import Testbed

        began = time.process_time()
        recipe, testbed = read_claim(self.claim, self.recipes), read_testbed(self.size, self.recipes)
        bed = Testbed(self.seed_folder, self.seed, testbed)
        found = CLAIMS[self.claim].measure(bed, getattr(recipe, self.size))
        measuring = time.process_time() - began - bed.products.inside
        document = {
            "claim": self.claim,
            "seed": self.seed,
            "size": self.size,
            "setting": self.setting(),
            "numbers": found.numbers,
            "points": found.points,
            "seconds": round(measuring + sum(bed.products.used.values()), 1),
            "about": about(),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.file, text_of([document]).encode())
        return read_seed(self.file)[0]


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """Name the settings that differ, `testbed.warp_policies.steps 300 -> 400`."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [text for each in keys for text in differences(before.get(each), now.get(each), f"{key}.{each}".lstrip("."))]
    return [] if before == now else [f"{key} {before} -> {now}"]


def about() -> dict[str, Any]:
    """Return where and with what something was measured."""
    import torch
    import transformers

    versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
    return {
        "warmkit": __version__,
        "commit": _commit(),
        "machine": _machine(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
        **versions,
    }


def _commit() -> str:
    """Return the commit of the clone that warmkit runs from, with a + where files were changed; empty without a clone."""
    commit = _git("rev-parse", "--short", "HEAD")
    return commit + ("+" if commit and _git("status", "--porcelain", "--untracked-files=no", ".") else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return name or platform.machine()
