"""Executors of jobs: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable

from warmkit.errors import UsageError
from warmkit.pipelines.processes import RunJobs, run_jobs


def open_executor(name: str, address: str | None = None, tell: Callable[[str], None] | None = None) -> RunJobs:
    """Return what runs jobs: `run_jobs` here, or that of a Ray cluster, which is connected to.

    Args:
        name: `processes` or `ray`.
        address: Of the cluster.
        tell: Called with a line for every worker of it that is lost.

    Raises:
        ClusterError: If it cannot be reached.
        UsageError: If Ray is not installed, or an address is given where there is no cluster.
    """
    if name == "ray":
        from warmkit.pipelines.ray_executor import RayCluster

        return RayCluster(address, tell).run_jobs
    if address is not None:
        raise UsageError("--address names a Ray cluster; give it with --executor ray")
    return run_jobs
