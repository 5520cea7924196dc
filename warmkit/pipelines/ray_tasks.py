"""Tasks on a Ray cluster, and the process of its own between a pipeline and Ray.

Ray's client ends its process, or waits for minutes, when a cluster cannot be reached or is lost, and takes over signals; so
the pipeline starts this one (`ray_executor.py`), reads what it says, and ends it whenever it likes. When it ends, so do its
tasks, and their jobs with them.

Its argument is the cluster's address. It reads orders, a JSON line each: `threads`, `folder` (of the jobs) and `jobs`. It
says, a JSON line each: `beat` (it and the cluster are alive; at first with the address of the `head`), `lost` and `done` (of
a job), and `error` (of all).
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import queue
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.pipelines.processes import ORPHANED, Job, run_to_its_end, with_threads

TRIES = 4  # of one run: the last of so many lost workers is no accident
BEAT = 2.0  # seconds
HELD = 120.0  # seconds that a task waits for the run directory: its forerunner on a lost node may still be at work


def run_job(job: Job, threads: str, folder: str) -> tuple[str | None, bool]:
    """Run a job on this node, as `processes` runs it on one machine.

    Returns:
        Its last words if it failed, and whether a signal killed it.
    """
    node = os.uname().nodename
    recipe = Path(folder, next(each for each in job.arguments if each.endswith(".yaml")))
    if not recipe.exists():
        return (
            f"{recipe} is not on node {node}; the nodes of a Ray cluster must share the folder of the recipe's output.path",
            False,
        )
    wait_until_free(Path(folder, job.metrics).with_name("lock"))
    said, killed = run_to_its_end(job, with_threads(threads if job.cpus is None else str(job.cpus)), folder)
    return (said if said is None else f"{said}, on node {node}"), killed


def wait_until_free(lock: Path, seconds: float = HELD) -> None:
    """Wait until nobody works in a run's directory, but not for ever: the run itself then says who does."""
    deadline = time.monotonic() + seconds
    while lock.exists() and time.monotonic() < deadline:
        with lock.open("rb") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        time.sleep(0.2)


class Dispatcher:
    """Keeps every job of one call on the cluster until it is done.

    Args:
        ray: The module, connected.
        threads: Of a job.
        folder: That the jobs work in.
    """

    def __init__(self, ray: Any, threads: str, folder: str) -> None:
        self.ray, self.threads, self.folder = ray, threads, folder
        self.cpus = int(self.threads.split(",")[0])
        self.gpus = 1 if any("GPU" in each for each in self.nodes()) else 0
        self.task = ray.remote(max_retries=0, scheduling_strategy="SPREAD")(run_job)
        self.tries = Counter[str]()

    def nodes(self) -> list[dict[str, float]]:
        """Return what every living node has."""
        return [each["Resources"] for each in self.ray.nodes() if each["Alive"]]

    def takes(self, job: Job) -> tuple[int, float]:
        """Return the CPUs and GPUs of a job."""
        return self.cpus if job.cpus is None else job.cpus, self.gpus if job.gpus is None else job.gpus

    def has_place(self, job: Job) -> bool:
        cpus, gpus = self.takes(job)
        return any(each.get("CPU", 0) >= cpus and each.get("GPU", 0) >= gpus for each in self.nodes())

    def no_place(self, job: Job) -> str:
        cpus, gpus = self.takes(job)
        wanted = f"{cpus} CPUs" + (f" and {'a GPU' if gpus == 1 else f'{gpus:g} GPUs'}" if gpus else "")
        most = max((each.get("CPU", 0) for each in self.nodes()), default=0)
        key = "OMP_NUM_THREADS to the threads of a run" if job.cpus is None else "command.cpus to fewer"
        return (
            f"a run takes {wanted}, and no node of the cluster that is left has so much (the largest has {most:g} CPUs); start "
            f"nodes that have, or set {key}"
        )

    def work(self, jobs: list[Job]) -> None:
        """See every job through; one that loses its worker is given to another, where the run goes on from its last state."""
        running = {self.submit(job): job for job in jobs}
        while running:
            if (homeless := next((job for job in running.values() if not self.has_place(job)), None)) is not None:
                say(error=self.no_place(homeless))
                return
            done, _ = self.ray.wait(list(running), num_returns=1, timeout=BEAT)
            say(beat=True)
            for reference in done:
                job = running.pop(reference)
                said, lost = self.result(reference)
                if said is None or not lost or self.tries[job.name] >= TRIES:
                    times = f"{self.tries[job.name]} times: " if lost else ""
                    say(done=job.name, said=said if said is None else times + said)
                else:
                    say(lost=job.name, said=said, tries=self.tries[job.name])
                    running[self.submit(job)] = job

    def submit(self, job: Job) -> Any:
        self.tries[job.name] += 1
        cpus, gpus = self.takes(job)
        return self.task.options(num_cpus=cpus, num_gpus=gpus).remote(job, self.threads, self.folder)

    def result(self, reference: Any) -> tuple[str | None, bool]:
        """Return a job's last words if it failed, and whether it was lost and not refused."""
        errors = self.ray.exceptions
        try:
            said, killed = self.ray.get(reference)
        except errors.OutOfMemoryError:
            return "its node ran out of memory; lower the batch_size, or give each run more CPUs with OMP_NUM_THREADS", True
        except errors.RayTaskError as error:
            return f"a node of the cluster cannot run it: {_last_line(error)}", False
        except errors.RayError as error:
            return f"its worker was lost ({type(error).__name__})", True
        return said, killed


def main() -> None:
    """Connect, run the jobs of every order, say how they end; end with the process that started this one."""
    orders = queue.Queue[str]()
    threading.Thread(target=_hear, args=(orders,), daemon=True).start()
    try:
        ray: Any = importlib.import_module("ray")  # pyright has no types of it
        ray.init(address=sys.argv[1], logging_level="fatal", log_to_driver=False)
        head = ray.get_runtime_context().gcs_address
    except Exception as error:
        say(error=f"{_last_line(error)}", connecting=True)
        return
    say(beat=True, head=head)
    while True:
        order = json.loads(orders.get())
        jobs = [replace(Job(**each), metrics=Path(each["metrics"])) for each in order["jobs"]]
        Dispatcher(ray, order["threads"], order["folder"]).work(jobs)


def _hear(orders: queue.Queue[str]) -> None:
    """Take orders; end where there will be no more, and the tasks with it: a run that lived on would write beside the next."""
    for line in sys.stdin:
        orders.put(line)
    os._exit(ORPHANED)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
