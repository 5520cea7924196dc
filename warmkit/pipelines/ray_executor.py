"""Runs as tasks of a Ray cluster whose nodes share a file system, watched through the metrics that they write.

A task runs what `processes` would run, with as many threads, so the bytes are the same. A run whose worker or node is lost is
given to another one and goes on from its last state there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Any

from warmkit.common.progress import Advance
from warmkit.errors import ClusterError, UsageError
from warmkit.pipelines.processes import POLL, Job, tell_progress, threads_of
from warmkit.training.telling import Tell

DOUBT = 10.0  # seconds without a word, after which the head is looked for
SILENCE = 60.0  # and after which the cluster is given up
APPEAR = 15.0  # seconds that a shared file system may take to show a file of another node
CLIENT = "from warmkit.pipelines.ray_tasks import main; main()"
KNOCK = 5.0  # seconds for a connection to the head
KEPT = "finished runs stay, and the others go on from their last state when the same command is given again"


class RayCluster:
    """A Ray cluster to run jobs on.

    Args:
        address: `HOST:PORT` of its head; by default RAY_ADDRESS, else a cluster that this machine is a node of.
        tell: Called with a line for every worker that is lost.

    Raises:
        ClusterError: If it cannot be reached.
        UsageError: If Ray is not installed.
    """

    def __init__(self, address: str | None = None, tell: Tell | None = None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("executor: ray needs Ray; install it on every node: pip install 'warmkit[ray]'")
        self.address, self.tell = address or os.environ.get("RAY_ADDRESS"), tell or (lambda line: None)
        self._conversation = self._connect()

    @property
    def name(self) -> str:
        return f"the Ray cluster at {self.address}" if self.address else "the Ray cluster of this machine"

    def run_jobs(self, jobs: Sequence[Job], most: int, steps: int, advance: Advance | None = None) -> dict[str, str]:
        """Run every job, as many at a time as the cluster has places; one that fails does not stop the others.

        Args:
            jobs: What to run.
            most: Runs that would share one machine; decides the threads of a run, which its task takes as CPUs. Where the
                cluster has GPUs, a task takes one of them too.
            steps: Lines of metrics that a job writes.
            advance: Progress callback, in steps of all jobs.

        Returns:
            The last words of every job that failed, by name.

        Raises:
            ClusterError: If the cluster is lost, or has no node (left) that is large enough for a run.
        """
        left, failed, shown = {job.name for job in jobs}, dict[str, str](), 0
        if self._conversation.over():
            self._conversation = self._connect()
        with self._conversation.or_its_end():
            self._conversation.order(jobs, threads_of(most))
            while left:
                for said in self._conversation.heard():
                    if "lost" in said:
                        self.tell(f"{said['lost']}: {said['said']}; it goes on elsewhere ({said['tries']} lost)")
                    if "done" in said:
                        left.discard(said["done"])
                        failed |= {} if said["said"] is None else {said["done"]: said["said"]}
                shown = tell_progress(jobs, steps, shown, advance)
        unseen = [job for job in jobs if job.name not in failed and not _appears(job.metrics.with_name("summary.json"))]
        return failed | {job.name: f"{job.metrics.parent} is not shared with the node that ran it" for job in unseen}

    def _connect(self) -> _Conversation:
        self._knock()
        conversation = _Conversation(self)
        with conversation.or_its_end():
            while not conversation.heard():
                pass
        return conversation

    def _knock(self) -> None:
        """Say at once that nobody is there: Ray would take five minutes to give up."""
        host, _, port = (self.address or "").rpartition(":")
        if not host or not port.isdigit() or "/" in host:
            return
        if (why := _unreachable(host, int(port))) is not None:
            raise ClusterError(f"{self.name} cannot be reached ({why}); start it: ray start --head --port={port}")


class _Conversation:
    """The process of `ray_tasks.py`, connected as long as its cluster is used, and what it says."""

    def __init__(self, cluster: RayCluster) -> None:
        self._name = cluster.name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, cluster.address or "auto"],
            stdin=subprocess.PIPE,  # for orders; it closes when this process ends, however it ends
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "RAY_DEDUP_LOGS": "0"},
            text=True,
        )
        self._lines = queue.Queue[str | None]()
        self._listener = threading.Thread(target=_listen, args=(self._process.stdout, self._lines), daemon=True)
        self._listener.start()
        self._silent, self._head = 0.0, ""
        self._end = weakref.finalize(self, _end, self._process, self._errors, self._listener)

    def over(self) -> bool:
        return self._process.poll() is not None

    @contextlib.contextmanager
    def or_its_end(self) -> Generator[None]:
        """End the process, and with it its tasks, where the block fails or is interrupted."""
        try:
            yield
        except BaseException:
            self._end()
            raise

    def order(self, jobs: Sequence[Job], threads: str) -> None:
        """Have jobs run, each with as many threads."""
        each = [{**vars(job), "arguments": list(job.arguments), "metrics": str(job.metrics)} for job in jobs]
        order = json.dumps({"threads": threads, "folder": str(Path.cwd()), "jobs": each})
        self._silent = 0.0
        with contextlib.suppress(BrokenPipeError):  # it has just ended: what it said last is heard next
            print(order, file=self._process.stdin, flush=True)

    def heard(self) -> list[dict[str, Any]]:
        """Return what was said since the last call, after a moment.

        Raises:
            ClusterError: If it is the end.
        """
        with contextlib.suppress(queue.Empty):
            line = self._lines.get(timeout=POLL)
            self._silent = 0.0
            if line is None:
                raise ClusterError(f"{self._name} is lost: {self._last_words()}; {KEPT}")
            with contextlib.suppress(json.JSONDecodeError):  # Ray itself
                return [self._understood(json.loads(line))]
            return []
        self._silent += POLL
        host, _, port = self._head.rpartition(":")
        if self._silent > SILENCE or (host and self._silent > DOUBT and _unreachable(host, int(port))):
            raise ClusterError(f"{self._name} is lost: its head does not answer any more; {KEPT}")
        return []

    def _understood(self, said: Any) -> dict[str, Any]:
        if not isinstance(said, dict):
            return {}
        if "error" in said and said.get("connecting"):
            raise ClusterError(
                f"{self._name} cannot be reached ({said['error']}). Start a head (ray start --head) and make this "
                "machine a node of it, or name it with --address"
            )
        if "error" in said:
            raise ClusterError(f"{self._name}: {said['error']}; {KEPT}")
        self._head = said.get("head", self._head)
        return said

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else f"its client ended (exit {self._process.returncode})"


def _listen(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[str], errors: IO[bytes], listener: threading.Thread) -> None:
    process.kill()  # Ray may take minutes to say goodbye to a cluster that is gone
    process.wait()
    listener.join()
    for stream in (process.stdin, process.stdout, errors):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _unreachable(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), KNOCK).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _appears(file: Path) -> bool:
    deadline = time.monotonic() + APPEAR
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True
