"""Runs on a real Ray cluster of two nodes on this machine: the bytes of `processes`, and workers, nodes and the head killed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

import warmkit
from tests.conftest import Run, make_family
from tests.unit.pipelines.test_commands import warm_recipe
from tests.unit.pipelines.test_warm import alive, recipe, run_path, written
from tests.unit.pipelines.test_warp import recipe as warp_recipe
from tests.unit.training import tiny
from warmkit.errors import ClusterError, UsageError
from warmkit.pipelines.executors import open_executor
from warmkit.pipelines.merge_parts import merge_in_parts
from warmkit.pipelines.processes import Job
from warmkit.pipelines.ray_executor import RayCluster
from warmkit.pipelines.ray_tasks import wait_until_free
from warmkit.pipelines.warm import run_recipes, run_warm
from warmkit.pipelines.warm_commands import run_warm_commands
from warmkit.pipelines.warp import run_warp
from warmkit.recipes.recipe import recipe_text
from warmkit.training.recipe_sections import WarmRecipe

pytest.importorskip("ray")
PYTHON = sys.executable  # of the nodes; what they and the tests start are forks
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("children_are_forks"),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc"),
]


class Cluster:
    """Two nodes of one CPU each."""

    def __init__(self) -> None:
        before = os.environ.get("PYTHONPATH", "")
        here = str(Path(__file__).with_name("nodes"))
        nodes = {"FORKS": sys.executable, "PYTHONPATH": os.pathsep.join(filter(None, [here, before])), "FORKS_BEFORE": before}
        self.process = subprocess.Popen(
            [PYTHON, str(Path(__file__).with_name("cluster.py")), "1", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **nodes},
            text=True,
        )
        self.address = self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def lose(self, node: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"lose {node}\n")
        self.process.stdin.flush()
        assert self._line() == "lost"


@pytest.fixture(scope="module")
def cluster(children_are_forks: None) -> Generator[Cluster]:
    made = Cluster()
    yield made
    with made.process:
        assert made.process.stdin is not None
        made.process.stdin.close()


@pytest.fixture(autouse=True)
def one_thread_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> WarmRecipe:
    """A pipeline whose runs were processes, with one thread each."""
    content = recipe(tmp_path_factory.mktemp("ray"), jobs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        run_warm(content)
    return content


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]


def wait_for(run: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while not (run / "metrics.jsonl").exists() or len(lines(run)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def processes_of(run: Path) -> list[int]:
    """Return the processes that train into a directory, and those that started them."""
    return processes_with(b"\0reward-model\0", f"{run}.yaml\0".encode())


def processes_with(*words: bytes) -> list[int]:
    """Return the processes whose command line has these words, and those that started them."""
    found: list[int] = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            told = (each / "cmdline").read_bytes()
            if all(word in told for word in words):
                parent = (each / "stat").read_text().rpartition(")")[2].split()[1]
                found += [int(each.name), int(parent)]
        except OSError:
            continue
    return found


def job(whole: WarmRecipe, name: str, **how: object) -> Job:
    """Return the first run of the pipeline again, in another directory."""
    out = Path(whole.output.path)
    content = run_recipes(replace(whole, data=replace(whole.data, train=str(out / "data" / "train.jsonl"))), out)["run-1"]
    content = replace(content, output=replace(content.output, path=str(out.with_name(name))), rm=replace(content.rm, **how))
    file = out.with_name(f"{name}.yaml")
    file.write_text(recipe_text(content))
    return Job(name, ["reward-model", str(file)], out.with_name(name) / "metrics.jsonl")


# ---- killed ---------------------------------------------------------------------------------------------------------


def test_a_killed_worker_costs_its_own_task_alone_and_the_bytes_are_those_of_processes(
    cluster: Cluster, whole: WarmRecipe
) -> None:
    content = replace(whole, output=replace(whole.output, path=whole.output.path + "-ray"))
    command = ["warm", str(written(content)), "--executor", "ray", "--address", cluster.address]
    pipeline = subprocess.Popen([sys.executable, "-m", "warmkit", *command], stderr=subprocess.PIPE, text=True)
    first, second = (run_path(content, name) for name in ("run-1", "run-2"))
    wait_for(second, 7)
    wait_for(first, 1)
    metrics = (first / "metrics.jsonl").stat().st_ino
    _, worker = processes_of(second)
    before = lines(second)[:5]
    os.kill(worker, signal.SIGKILL)
    assert not (second / "summary.json").exists(), "killed too late"
    _, errors = pipeline.communicate(timeout=120)
    assert pipeline.returncode == 0, errors
    assert errors.count("its worker was lost") == 1
    assert "note: run-2: its worker was lost" in errors
    assert lines(second)[:5] == before, "steps before the last state were done again"
    assert (first / "metrics.jsonl").stat().st_ino == metrics, "the other run was started again"
    for place in ("runs/run-1/model", "runs/run-2/model", "model"):
        assert tiny.bytes_of(Path(content.output.path) / place) == tiny.bytes_of(Path(whole.output.path) / place)


def test_a_run_whose_pipeline_is_killed_ends_with_it(cluster: Cluster, whole: WarmRecipe) -> None:
    each = job(whole, "orphan", steps=5000)
    code = (
        "import sys; from pathlib import Path; from warmkit.pipelines.ray_executor import RayCluster; "
        "from warmkit.pipelines.processes import Job; name, address, recipe, metrics = sys.argv[1:]; "
        "RayCluster(address).run_jobs([Job(name, ['reward-model', recipe], Path(metrics))], 1, 1)"
    )
    told = [each.name, cluster.address, each.arguments[1], str(each.metrics)]
    pipeline = subprocess.Popen([sys.executable, "-c", code, *told])
    wait_for(each.metrics.parent, 1)
    child, _ = processes_of(each.metrics.parent)
    pipeline.kill()
    pipeline.wait()
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)


def test_warp_takes_its_policies_to_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    content = warp_recipe(tmp_path, iterations=1, jobs=2, etas=[], steps=[3])
    ray = replace(content, output=replace(content.output, path=content.output.path + "-ray"))
    ray = replace(ray, warp=replace(ray.warp, executor="ray"))
    models = [run_warp(content).path, run_warp(ray, address=cluster.address).path]
    assert tiny.bytes_of(models[0]) == tiny.bytes_of(models[1])


def test_runs_by_command_go_to_the_cluster_with_what_they_take(cluster: Cluster, tmp_path: Path) -> None:
    content = warm_recipe(tmp_path, "here")
    here = run_warm_commands(content)
    there = replace(
        content,
        output=replace(content.output, path=str(tmp_path / "there")),
        command=replace(content.command, cpus=1, run=f"echo $OMP_NUM_THREADS > {{output}}/threads; {content.command.run}"),
        warm=replace(content.warm, executor="ray"),
    )
    assert tiny.bytes_of(run_warm_commands(there, address=cluster.address).path) == tiny.bytes_of(here.path)
    assert (tmp_path / "there/runs/run-1/output/threads").read_text() == "1\n"
    large = replace(there, output=replace(there.output, path=str(tmp_path / "large")), command=replace(there.command, cpus=7))
    with pytest.raises(ClusterError, match=r"a run takes 7 CPUs, and no node .* or set command\.cpus to fewer"):
        run_warm_commands(large, address=cluster.address)


def test_a_merge_over_the_cluster_has_the_bytes_of_one_and_a_killed_worker_costs_its_part(
    cluster: Cluster, tmp_path: Path
) -> None:
    family, told = make_family(tmp_path), list[str]()
    one = warmkit.merge(family.models, tmp_path / "one", init=family.init)

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not (found := processes_with(b"\0merge-part\0", str(tmp_path / ".out.warmkit" / "parts").encode())):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(found[1], signal.SIGKILL)  # who started it: the worker

    killing = threading.Thread(target=kill)
    killing.start()
    run_jobs = RayCluster(cluster.address, told.append).run_jobs
    result = merge_in_parts(family.models, tmp_path / "out", run_jobs, init=family.init, part_bytes=1 << 13)
    killing.join()
    assert len(told) == 1
    assert "its worker was lost" in told[0]
    assert tiny.bytes_of(result.path) == tiny.bytes_of(one.path)


def test_merge_goes_to_the_cluster_by_one_option_or_one_key(cluster: Cluster, tmp_path: Path, run: Run) -> None:
    family = make_family(tmp_path)
    recipe = tmp_path / "merge.yaml"
    recipe.write_text(
        f"merge:\n  method: lerp\n  models: [{family.a}, {family.b}]\n  executor: ray\noutput:\n  path: {tmp_path / 'two'}\n"
    )
    done = run("merge", "--method", "lerp", family.a, family.b, "-o", "one", "--executor", "ray", "--address", cluster.address)
    assert done.returncode == 0, done.stderr
    done = run("merge", recipe, env={"RAY_ADDRESS": cluster.address})
    assert done.returncode == 0, done.stderr
    warmkit.merge([family.a, family.b], tmp_path / "here", method="lerp")
    assert tiny.bytes_of(tmp_path / "one") == tiny.bytes_of(tmp_path / "two") == tiny.bytes_of(tmp_path / "here")


# ---- refused --------------------------------------------------------------------------------------------------------


def test_a_cluster_that_is_not_there_is_said_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    content = recipe(tmp_path)
    content = replace(content, warm=replace(content.warm, executor="ray"))
    with pytest.raises(ClusterError, match=r"the Ray cluster at 127\.0\.0\.1:1 cannot be reached \(Connection refused\)"):
        run_warm(content, address="127.0.0.1:1")
    assert not Path(content.output.path).exists()


def test_without_an_address_and_a_cluster_the_advice_is_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where Ray looks for clusters of this machine
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(ClusterError, match=r"cannot be reached .*ray start --head.*--address"):
        RayCluster()


def test_ray_that_is_not_installed_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"executor: ray needs Ray; install it on every node: pip install 'warmkit\[ray\]'"):
        open_executor("ray")


def test_an_address_without_ray_is_refused() -> None:
    with pytest.raises(UsageError, match="--executor ray"):
        open_executor("processes", "10.0.0.1:6379")


def test_a_task_waits_for_the_directory_that_its_forerunner_still_holds(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    code = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    waiting = threading.Thread(target=wait_until_free, args=(lock,))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    holder.communicate("")
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_run_that_no_node_has_room_for_is_refused(
    cluster: Cluster, whole: WarmRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    ray = RayCluster(cluster.address)
    with pytest.raises(ClusterError, match=r"a run takes 3 CPUs, and no node .* \(the largest has 1 CPUs\).*OMP_NUM_THREADS"):
        ray.run_jobs([job(whole, "large")], 1, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert ray.run_jobs([], 1, 1) == {}, "the connection that ended is made anew"


def test_a_run_that_fails_says_why_and_is_not_tried_again(cluster: Cluster, whole: WarmRecipe) -> None:
    bad, told = job(whole, "bad", keep=[1 << 20]), list[str]()
    failed = RayCluster(cluster.address, told.append).run_jobs([bad], 1, 1)
    assert "rm.keep: expected steps between 1 and" in failed["bad"]
    assert "(exit 2), on node " in failed["bad"]
    assert told == []


# ---- nodes lost; the last tests of this cluster ---------------------------------------------------------------------


def test_a_lost_node_gives_its_run_to_another_with_the_same_bytes(cluster: Cluster, whole: WarmRecipe) -> None:
    jobs, told = [job(whole, "lost-1"), job(whole, "lost-2")], list[str]()

    def lose() -> None:
        for each in jobs:
            wait_for(each.metrics.parent, 7)
        cluster.lose(1)

    losing = threading.Thread(target=lose)
    losing.start()
    assert RayCluster(cluster.address, told.append).run_jobs(jobs, 2, 1) == {}
    losing.join()
    assert len(told) == 1, "one node, one run"
    for each in jobs:
        assert tiny.bytes_of(each.metrics.parent / "model") == tiny.bytes_of(run_path(whole, "run-1") / "model")


def test_a_lost_head_is_one_line_and_the_work_is_kept(cluster: Cluster, whole: WarmRecipe) -> None:
    each = job(whole, "headless", steps=5000)

    def lose() -> None:
        wait_for(each.metrics.parent, 7)
        cluster.lose(0)

    losing = threading.Thread(target=lose)
    losing.start()
    with pytest.raises(ClusterError, match="finished runs stay, and the others go on") as raised:
        RayCluster(cluster.address).run_jobs([each], 1, 1)
    losing.join()
    assert "\n" not in str(raised.value)
    assert (each.metrics.parent / "state.pt").exists()
