"""One table in one run: a copy floor, warmkit, and mergekit when it is installed.

    python -m tests.benchmarks.merge --folder /dev/shm/bench --mergekit /path/to/venv/bin/mergekit-yaml
    python -m tests.benchmarks.merge --edits --size 0.3B --mergekit /path/to/venv/bin/mergekit-yaml

Every row is a whole process, started afresh: wall time, CPU time and peak memory from the operating system. `work` is what
the process itself measured after its imports. Contenders take turns, run by run; each writes to a directory that was
removed before, and finds memory that the machine already has (see `WarmMemory`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.llama import SIZES, build
from warmkit.merging.methods import METHODS

FLOOR = str(Path(__file__).with_name("copy_floor.py"))
WARM = 15 << 29  # what mergekit takes at its peak, and its output; of 1.1B parameters
SHARE_OF_WARM = {"0.1B": 0.15, "0.3B": 0.4, "1.1B": 1.0}
MERGEKIT = {
    "mergekit linear": "merge_method: linear\nmodels:\n{models}\ndtype: bfloat16\n",
    "mergekit nuslerp": "merge_method: nuslerp\nbase_model: {init}\nmodels:\n{models}\ndtype: bfloat16\n",
}
EDITS = {
    "mergekit ties": "merge_method: ties\nbase_model: {init}\nmodels:\n{models}\ndtype: bfloat16\n",
    "mergekit dare_linear": "merge_method: dare_linear\nbase_model: {init}\nmodels:\n{models}\ndtype: bfloat16\n",
}


@dataclass(frozen=True)
class Run:
    """What one process took: seconds, CPU seconds, seconds after imports, megabytes."""

    wall: float
    cpu: float
    work: float | None
    memory: float


STARTED = """
import json, os, sys, time
began = time.perf_counter()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(process, 0)
told = [status, time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000]
os.write(int(sys.argv[1]), json.dumps(told).encode())
"""


def measure(command: list[str], output: Path, warm: int = WARM) -> Run:
    """Run a command with bytecode, as pip leaves packages: else Python compiles their sources at every start.

    A small process starts it: the kernel counts the memory of who starts a process as the process's own.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    shutil.rmtree(output, ignore_errors=True)
    log = output.parent / "log"
    with WarmMemory(output.parent, warm), log.open("w+") as file:
        read, write = os.pipe()
        line = [sys.executable, "-S", "-c", STARTED, str(write), *command]
        subprocess.run(line, stdout=file, stderr=subprocess.STDOUT, env=environment, pass_fds=[write], check=True)
        os.close(write)
        with os.fdopen(read) as told:
            status, wall, cpu, memory = json.loads(told.read())
        file.seek(0)
        said = file.read()
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{said[-2000:]}")
    return Run(wall, cpu, _work(said), memory)


class WarmMemory:
    """Memory that the machine has already been given, handed on to whoever allocates.

    A virtual machine may return free pages to its host within two seconds, and getting them back costs four to nine times
    a plain write (2.5 GB: 0.63 s against 2.7-5.8 s here). So a file holds as much memory as a contender needs, and shrinks
    while the contender runs by what the contender takes: every contender, the floor included, finds warm pages.
    """

    HEADROOM = 512 << 20

    def __init__(self, folder: Path, size: int) -> None:
        self.path, self.size, self.over = folder / "warm", size, threading.Event()

    def __enter__(self) -> None:
        block = memoryview(bytes(1 << 24))
        with self.path.open("ab", buffering=0) as file:
            for _ in range((self.size - file.tell()) >> 24):
                file.write(block)
        self.thread = threading.Thread(target=self._hand_on)
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _hand_on(self) -> None:
        left, target = self.path.stat().st_size, _free_memory() + self.HEADROOM
        while not self.over.wait(0.005):
            if (taken := target - _free_memory()) > 0 and left:
                os.truncate(self.path, left := max(0, left - taken))


def _free_memory() -> int:
    fields = Path("/proc/meminfo").read_text().split()
    return int(fields[fields.index("MemFree:") + 1]) << 10


def _work(said: str) -> float | None:
    start = said.find("{")
    return json.loads(said[start : said.rfind("}") + 1])["seconds"] if start >= 0 and '"seconds"' in said else None


def mergekit(binary: str, name: str, folder: Path, output: Path) -> list[str]:
    models = "\n".join(f"  - model: {folder / model}\n    parameters: {{weight: 0.5}}" for model in ("m1", "m2"))
    recipe = folder / f"{name.replace(' ', '-')}.yaml"
    recipe.write_text(MERGEKIT[name].format(models=models, init=folder / "m0"))
    return [binary, str(recipe), str(output)]


def contenders(folder: Path, output: Path, binary: str | None) -> dict[str, list[str]]:
    """Name every command, in the order of the table."""
    init, models = folder / "m0", [str(folder / "m1"), str(folder / "m2")]
    warmkit = [sys.executable, "-m", "warmkit", "merge", "-o", str(output), "--json", "--threads", "2"]
    arc = [*warmkit, "--method", "slerp", "--init", str(init), *models]
    commands = {
        "copy floor, 2 in 1 out": [sys.executable, FLOOR, str(output), *models],
        "copy floor, 3 in 1 out": [sys.executable, FLOOR, str(output), str(init), *models],
        "warmkit lerp": [*warmkit, "--method", "lerp", *models],
        "warmkit slerp": arc,
    }
    if binary:
        commands |= {name: mergekit(binary, name, folder, output) for name in MERGEKIT}
    return commands


def edits(folder: Path, output: Path, binary: str | None, methods: Sequence[str]) -> dict[str, list[str]]:
    """Name the commands of methods that edit task vectors, three models each, at density 0.5 where they have one."""
    init, models = folder / "m0", [folder / f"m{number}" for number in (1, 2, 3)]
    warmkit = [sys.executable, "-m", "warmkit", "merge", "-o", str(output), "--json", "--threads", "2"]
    commands: dict[str, list[str]] = {}
    for name in methods:
        density = any(each.name == "density" for each in getattr(METHODS[name], "parameters", ()))
        how = ["--method", name, *(["--density", "0.5"] if density else [])]
        commands[f"warmkit {name}"] = [*warmkit, *how, "--init", str(init), *map(str, models)]
    listed = "\n".join(f"  - model: {model}\n    parameters: {{weight: 1, density: 0.5}}" for model in models)
    for name, recipe in (EDITS if binary else {}).items():
        file = folder / f"{name.replace(' ', '-')}.yaml"
        file.write_text(recipe.format(models=listed, init=init))
        commands[name] = [str(binary), str(file), str(output)]
    return commands


def scaling(folder: Path, output: Path) -> dict[str, list[str]]:
    """Name the commands that show how time and memory grow with bytes and models."""
    warmkit = [sys.executable, "-m", "warmkit", "merge", "-o", str(output), "--json", "--threads", "2"]
    small, large = folder.parent / "0.3B", folder
    commands: dict[str, list[str]] = {}
    for size, place, counts in (("0.3B", small, (2, 4, 8)), ("1.1B", large, (2,))):
        for count in counts:
            models = [str(place / f"m{number}") for number in range(1, count + 1)]
            commands[f"lerp of {count}, {size}"] = [*warmkit, "--method", "lerp", *models]
            commands[f"slerp of {count}, {size}"] = arc = [*warmkit, "--method", "slerp", "--init", str(place / "m0"), *models]
            if (size, count) == ("0.3B", 2):
                commands["slerp of 2, one eta, 0.3B"] = [*arc, "--eta", "0.3"]
                commands["slerp of 2, six etas, 0.3B"] = [*arc, "--eta", "0,0.1,0.3,0.5,0.8,1"]
    return commands


def table(commands: dict[str, list[str]], output: Path, runs: int, warm: int = WARM) -> dict[str, list[Run]]:
    measured: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(-1, runs):  # the first round warms up, what takes long excepted
        for name, command in commands.items():
            if number < 0 and (name in MERGEKIT or name in EDITS):
                continue
            result = measure(command, output, warm)
            print(f"\r{number + 1}/{runs} {name}: {result.wall:.2f} s  ", end="", file=sys.stderr, flush=True)
            if number >= 0:
                measured[name].append(result)
            shutil.rmtree(output, ignore_errors=True)
    print(file=sys.stderr)
    print(f"{'':26} {'wall s':>8} {'min-max':>13} {'cpu s':>7} {'work s':>7} {'peak MB':>8}")
    for name, results in measured.items():
        wall = [result.wall for result in results]
        work = [result.work for result in results if result.work is not None]
        print(
            f"{name:26} {statistics.median(wall):8.2f} {min(wall):6.2f}-{max(wall):<6.2f} "
            f"{statistics.median(result.cpu for result in results):7.2f} "
            f"{(f'{statistics.median(work):.2f}' if work else ''):>7} {max(result.memory for result in results):8.0f}",
            flush=True,
        )
    return measured


def ratio(measured: dict[str, list[Run]], first: str, second: str, attribute: str) -> None:
    """Print the median of the ratios of runs that took turns."""
    if first in measured and second in measured:
        pairs = zip(measured[first], measured[second])
        ratios = [getattr(a, attribute) / getattr(b, attribute) for a, b in pairs]
        print(f"{attribute}: {first} / {second} = {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/warmkit-bench"), help="in memory, for the engine alone")
    parser.add_argument("--mergekit", help="its mergekit-yaml, in a virtual environment of its own")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scaling", action="store_true", help="instead, time and memory over sizes and numbers of models")
    parser.add_argument("--edits", action="store_true", help="instead, TIES and DARE of three models")
    parser.add_argument("--methods", default="ties,dare-linear", help="or these")
    parser.add_argument("--size", choices=SIZES, default="1.1B", help="of the models of --edits")
    given = parser.parse_args()
    if given.edits:
        folder, output = given.folder / given.size, given.folder / "out"
        for number in range(4):
            if not (folder / f"m{number}" / "config.json").exists():
                build(folder / f"m{number}", given.size, number)
        warm = int(WARM * SHARE_OF_WARM[given.size])
        measured = table(edits(folder, output, given.mergekit, given.methods.split(",")), output, given.runs, warm)
        for name, other in (("mergekit ties", "warmkit ties"), ("mergekit dare_linear", "warmkit dare-linear")):
            ratio(measured, name, other, "wall")
            ratio(measured, name, other, "cpu")
        return
    for size, count in (("0.3B", 9), ("1.1B", 3)) if given.scaling else (("1.1B", 3),):
        for number in range(count):
            if not (given.folder / size / f"m{number}" / "config.json").exists():
                build(given.folder / size / f"m{number}", size, number)
    folder, output = given.folder / "1.1B", given.folder / "out"
    if given.scaling:
        measured = table(scaling(folder, output), output, given.runs)
        ratio(measured, "slerp of 2, six etas, 0.3B", "slerp of 2, one eta, 0.3B", "wall")
        ratio(measured, "slerp of 2, 1.1B", "slerp of 2, 0.3B", "work")
        ratio(measured, "lerp of 8, 0.3B", "lerp of 2, 0.3B", "work")
        return
    measured = table(contenders(folder, output, given.mergekit), output, given.runs)
    ratio(measured, "mergekit linear", "warmkit lerp", "wall")
    ratio(measured, "mergekit nuslerp", "warmkit slerp", "wall")
    ratio(measured, "warmkit lerp", "copy floor, 2 in 1 out", "work")
    ratio(measured, "warmkit slerp", "copy floor, 3 in 1 out", "work")


if __name__ == "__main__":
    main()
