"""Streaming over a network with a latency and a bandwidth: how much of the bandwidth a merge uses.

    python -m tests.benchmarks.remote --folder /dev/shm/warmkit-bench

Two models of 2 GB (1.1B parameters, bfloat16) behind `range_server`, 20 ms and 500 MB/s, merged into memory. Share is what was
sent per second of the merge (from its first header to the result in place, imports excluded) over the bandwidth. `read
alone` is a bare client of 16 connections that reads the same files into buffers: what the server and two cores can do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from tests.benchmarks.llama import build

LATENCY, BANDWIDTH = 0.02, 500e6


def sent(address: str) -> int:
    with urllib.request.urlopen(f"{address}/_sent") as answer:
        return int(answer.read())


def merge(address: str, folder: Path, method: str, threads: int) -> dict[str, float]:
    """Merge once; return seconds, bytes and megabytes of memory, and look that nothing of the inputs lies on disk."""
    output, temporary = folder / "out", Path(tempfile.mkdtemp(prefix="bench-"))
    shutil.rmtree(output, ignore_errors=True)
    models = [f"{address}/m1", f"{address}/m2", *(["--init", f"{address}/m0"] if method == "slerp" else [])]
    command = ["merge", "--method", method, *models, "-o", str(output), "--json", "--threads", str(threads)]
    sent(address)
    environment = {**os.environ, "TMPDIR": str(temporary), "HF_HOME": str(temporary / "hub")}
    largest, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            largest[0] = max(largest[0], sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, "-m", "warmkit", *command], stdout=said, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        said.seek(0)
        text = said.read()
    over.set()
    watcher.join()
    if status:
        raise SystemExit(f"failed: {text}")
    shutil.rmtree(output)
    shutil.rmtree(temporary)
    seconds, count = json.loads(text)["seconds"], sent(address)
    return {
        "seconds": seconds,
        "gigabytes": count / 1e9,
        "rate": count / seconds / 1e6,
        "share": count / seconds / BANDWIDTH,
        "memory": usage.ru_maxrss / 1000,
        "cpu": usage.ru_utime + usage.ru_stime,
        "disk": largest[0] / 1e6,
    }


def read_alone(address: str) -> dict[str, float]:
    """Read both models as a merge does and compute nothing."""
    from warmkit.layouts.opening import open_checkpoint
    from warmkit.sources.files import Files

    opened = [open_checkpoint(f"{address}/{name}") for name in ("m1", "m2")]
    sent(address)
    step, buffer = 1 << 22, bytearray(1 << 22)
    places = [
        (file, start) for pair in zip(*(each.files for each in opened)) for file in pair for start in range(0, file.size, step)
    ]
    began = time.perf_counter()
    with Files() as files:
        for number, (file, start) in enumerate(places):
            for other, place in places[: 32 + 1] if number == 0 else places[number + 32 : number + 33]:
                files.ahead(other, place, step)
            files.read(file, start, memoryview(buffer)[: min(step, file.size - start)])
    seconds, count = time.perf_counter() - began, sent(address)
    return {"seconds": seconds, "gigabytes": count / 1e9, "rate": count / seconds / 1e6, "share": count / seconds / BANDWIDTH}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/warmkit-bench"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", default="lerp,slerp")
    given = parser.parse_args()
    folder = given.folder / "1.1B"
    for number in (0, 1, 2) if "slerp" in given.methods else (1, 2):
        if not (folder / f"m{number}" / "config.json").exists():
            build(folder / f"m{number}", "1.1B", number)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.range_server", str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        rows = {"read alone": lambda: read_alone(address)}
        rows |= {name: lambda name=name: merge(address, given.folder, name, given.threads) for name in given.methods.split(",")}
        print(f"{'':12} {'s':>7} {'GB sent':>8} {'MB/s':>6} {'share':>12} {'peak MB':>8} {'cpu s':>6} {'MB on disk':>10}")
        for name, measure in rows.items():
            found = [measure() for _ in range(given.runs)]

            def middle(key: str, found: list[dict[str, float]] = found) -> float:
                return statistics.median(each.get(key, 0) for each in found)

            shares = [each["share"] for each in found]
            print(
                f"{name:12} {middle('seconds'):7.2f} {middle('gigabytes'):8.2f} {middle('rate'):6.0f} "
                f"{statistics.median(shares):5.2f} ({min(shares):.2f}-{max(shares):.2f}) "
                f"{max(each.get('memory', 0) for each in found):6.0f} {middle('cpu'):6.1f} {middle('disk'):10.3f}",
                flush=True,
            )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
