"""Runs as processes of their own, several at a time, watched through the metrics that they write."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from warmkit.common.progress import Advance
from warmkit.errors import TrainingError, listed

RunJobs = Callable[..., dict[str, str]]
"""`run_jobs`, here or on a cluster."""

POLL = 0.3  # seconds
ORPHANED = 137  # exit code of a process whose parent is gone
CHILD = "warmkit.child"  # the module that runs a job; it stands above this one, and so is named and not imported


@dataclass(frozen=True)
class Job:
    """Work that a process of its own does.

    Attributes:
        name: For messages.
        arguments: Of `warmkit.child`: what to do, and the file that says it.
        metrics: A file that gets a line a step.
        cpus: Its threads, and what it takes of a cluster; by default its share of this machine.
        gpus: That it sees here, or takes of a cluster; by default one where there are any.
    """

    name: str
    arguments: Sequence[str]
    metrics: Path
    cpus: int | None = None
    gpus: float | None = None


def run_jobs(jobs: Sequence[Job], most: int, steps: int, advance: Advance | None = None) -> dict[str, str]:
    """Run every job, at most `most` at a time; one that fails does not stop the others.

    Args:
        jobs: What to run.
        most: Processes at a time; they share the cores, and on GPUs each gets its own.
        steps: Lines of metrics that a job writes.
        advance: Progress callback, in steps of all jobs.

    Returns:
        The last words of every job that failed, by name.
    """
    waiting, running, failed = list(jobs), dict[int, _Process](), dict[str, str]()
    shown = 0
    try:
        while waiting or running:
            while waiting and len(running) < most:
                slot, job = min(set(range(most)) - set(running)), waiting.pop(0)
                running[slot] = _Process(job, _environment(slot, most, job.cpus, job.gpus))
            time.sleep(POLL)
            for slot, process in list(running.items()):
                if process.over():
                    del running[slot]
                    if (why := process.failure()) is not None:
                        failed[process.job.name] = why
            shown = tell_progress(jobs, steps, shown, advance)
    finally:
        for process in running.values():
            process.stop()
    return failed


def tell_progress(jobs: Sequence[Job], steps: int, shown: int, advance: Advance | None) -> int:
    """Tell what the jobs have done since `shown` steps, by their metrics; return how many they have done."""
    done = sum(_lines(job.metrics) for job in jobs)
    if advance is None or done <= shown:
        return shown
    advance(done - shown, steps * len(jobs))
    return done


def check_all_finished(failed: Mapping[str, str], of: int, exclude: str) -> None:
    """Say which runs failed and what to do; the work of the others stays.

    Args:
        failed: Last words by name, of `run_jobs`.
        of: Runs that were wanted.
        exclude: Key of the recipe that leaves runs out.

    Raises:
        TrainingError: If there is any.
    """
    if failed:
        raise TrainingError(
            f"{len(failed)} of {of} runs failed; the others are finished and stay. Run again to try them again, or leave them "
            f"out with --set '{exclude}=[{', '.join(failed)}]':\n{listed([f'{name}: {why}' for name, why in failed.items()])}"
        )


def run_to_its_end(job: Job, environment: Mapping[str, str], folder: str) -> tuple[str | None, bool]:
    """Run one job; return its last words if it failed, and whether a signal killed it."""
    process = _Process(job, environment, folder)
    try:
        while not process.over():
            time.sleep(POLL)
    except BaseException:
        process.stop()
        raise
    return process.failure(), process.killed


def follow_parent() -> None:
    """End with the process that started this one and holds its standard input, even where that is killed.

    A job that lived on would write to the same directory as the one that the next call starts.
    """

    def watch() -> None:
        os.read(0, 1)
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def default_jobs(gpus: float | None = None) -> int:
    """Return how many runs go at the same time: one per GPU, or as many as each takes, else one per two cores."""
    return max(1, _gpus() // _whole(gpus)) if _gpus() else max(1, cores() // 2)


class _Process:
    """A job at work.

    Args:
        job: What to run.
        environment: Of the process.
        folder: That it works in; by default that of this process.

    Attributes:
        killed: Whether a signal ended it.
    """

    def __init__(self, job: Job, environment: Mapping[str, str], folder: str | None = None) -> None:
        self.job, self.killed = job, False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", CHILD, *job.arguments],
            stdin=subprocess.PIPE,  # never written to: it closes when this process ends, however it ends
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=environment,
            cwd=folder,
        )

    def over(self) -> bool:
        return self._process.poll() is not None

    def failure(self) -> str | None:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        self._close()
        self.killed = self._process.returncode < 0
        if self._process.returncode == 0:
            return None
        said = next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")
        return f"{said.removeprefix('error: ')} (exit {self._process.returncode})".strip()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        self._errors.close()
        if self._process.stdin is not None:
            self._process.stdin.close()


def _environment(slot: int, share: int, cpus: int | None = None, gpus: float | None = None) -> dict[str, str]:
    """Give each process its share of the cores, or GPUs of its own: processes that fight for cores crawl."""
    environment = with_threads(threads_of(share) if cpus is None else str(cpus))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(number) for number in range(_gpus())]
    if not devices:
        return environment
    count = _whole(gpus)
    own = dict.fromkeys(devices[(slot * count + place) % len(devices)] for place in range(count))
    return {**environment, "CUDA_VISIBLE_DEVICES": "" if gpus == 0 else ",".join(own)}


def _whole(gpus: float | None) -> int:
    """Return how many GPUs a run occupies, at least one."""
    return 1 if gpus is None else max(1, math.ceil(gpus))


def threads_of(share: int) -> str:
    """Return the threads of a run when `share` runs share this machine; OMP_NUM_THREADS, where it is set, goes before."""
    return os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // share)))


def with_threads(threads: str) -> dict[str, str]:
    """Return this process's environment, for a run of some threads."""
    return {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}


def cores() -> int:
    """Return how many processors this process may use."""
    from warmkit.engine.devices import cores as available

    return available()


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _lines(file: Path) -> int:
    try:
        return file.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
