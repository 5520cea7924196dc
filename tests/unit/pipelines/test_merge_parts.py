"""A merge in parts has the bytes of one; parts that were lost go on, those that were finished are not merged again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import warmkit
from tests.conftest import Family, Run, make_family, save, weights
from warmkit.engine.parts import divide
from warmkit.engine.prepare import prepare
from warmkit.errors import ChangedError, ClusterError, OutputError
from warmkit.pipelines.merge_parts import follow_order, merge_in_parts
from warmkit.pipelines.processes import Job, run_jobs
from warmkit.verbs.merge import merge_call

pytestmark = pytest.mark.usefixtures("children_are_forks")

SMALL = 1 << 11  # bytes of a part: a group each


@pytest.mark.parametrize(
    "call",
    [
        {"method": "slerp", "coefficients": [1, 2, 3]},
        {"method": "ties", "density": 0.5},
        {"method": "lerp", "angles": True, "eta": [0.3, 1.0], "max_shard_size": "2KB"},
        {"method": "slerp", "exclude": ["*embed*"], "dtype": "bfloat16"},
    ],
    ids=str,
)
def test_parts_write_the_bytes_of_one_process(tmp_path: Path, call: dict[str, Any]) -> None:
    family = make_family(tmp_path)
    one = warmkit.merge(family.models, tmp_path / "one", init=family.init, **call)
    found = merge_in_parts(family.models, tmp_path / "parts", run_jobs, init=family.init, part_bytes=SMALL, **call)
    for eta, ours in found.outputs.items():
        theirs = one.outputs[eta]
        for file in theirs.glob("*.safetensors"):
            assert (ours / file.name).read_bytes() == file.read_bytes()
        manifests = [json.loads((each / "warmkit.json").read_text()) for each in (ours, theirs)]
        assert manifests[0]["tensors"] == manifests[1]["tensors"]
        assert manifests[0]["groups"] == manifests[1]["groups"]
    assert not (tmp_path / ".parts.warmkit").exists()


def test_a_part_that_failed_is_the_only_one_that_is_merged_again(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    seen: list[list[str]] = []

    def failing(jobs: Sequence[Job], *rest: Any) -> dict[str, str]:
        seen.append([job.name for job in jobs])
        return run_jobs(jobs[:-1], *rest) | {jobs[-1].name: "its worker was lost (exit 9)"}

    call: dict[str, Any] = {"init": family.init, "part_bytes": SMALL}
    with pytest.raises(ClusterError, match=r"1 of \d+ parts failed; the others stay .*\n.*part-\d+: its worker was lost"):
        merge_in_parts(family.models, tmp_path / "out", failing, **call)
    assert not (tmp_path / "out").exists()

    def counting(jobs: Sequence[Job], *rest: Any) -> dict[str, str]:
        seen.append([job.name for job in jobs])
        return run_jobs(jobs, *rest)

    result = merge_in_parts(family.models, tmp_path / "out", counting, **call)
    assert len(seen[0]) > 2
    assert seen[1] == ["part-0"]
    assert result.resumed == len(weights(0))
    warmkit.merge(family.models, tmp_path / "one", init=family.init)
    assert (result.path / "model.safetensors").read_bytes() == (tmp_path / "one" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("here", [False, True])
def test_what_parts_wrote_counts_for_the_same_merge_wherever_it_goes_on_and_for_no_other(tmp_path: Path, here: bool) -> None:
    """A driver that is killed leaves the journals of its parts behind."""
    family = make_family(tmp_path)

    def killed(jobs: Sequence[Job], *rest: Any) -> dict[str, str]:
        run_jobs(jobs[:-2], *rest)
        raise KeyboardInterrupt

    def go_on(**call: Any) -> warmkit.MergeResult:
        if here:
            return warmkit.merge(family.models, tmp_path / "out", init=family.init, **call)
        return merge_in_parts(family.models, tmp_path / "out", run_jobs, init=family.init, part_bytes=SMALL, **call)

    for eta in (1.0, 0.3):
        with pytest.raises(KeyboardInterrupt):
            merge_in_parts(family.models, tmp_path / "out", killed, init=family.init, part_bytes=SMALL, threads=1)
        result = go_on(eta=eta)
        assert (result.resumed > 0) is (eta == 1 or not here)
        warmkit.verify(result.path)
        one = warmkit.merge(family.models, tmp_path / f"one-{eta}", init=family.init, eta=eta)
        assert (result.path / "model.safetensors").read_bytes() == (one.path / "model.safetensors").read_bytes()
        shutil.rmtree(result.path)


def test_an_input_that_is_replaced_while_parts_are_merged_is_noticed(tmp_path: Path) -> None:
    family = make_family(tmp_path)

    def replacing(jobs: Sequence[Job], *rest: Any) -> dict[str, str]:
        failed = run_jobs(jobs, *rest)
        file = family.a / "model.safetensors"
        shutil.copy2(file, file.with_suffix(".new"))  # with the size and the time of the old one
        file.with_suffix(".new").replace(file)
        return failed

    with pytest.raises(ChangedError, match=r"a/model\.safetensors: was replaced by another file"):
        merge_in_parts(family.models, tmp_path / "out", replacing, init=family.init, part_bytes=SMALL)
    assert not list(tmp_path.glob("*out*"))


def run_here(jobs: Sequence[Job], *_: Any) -> dict[str, str]:
    """Merge the parts in this process, without its start."""
    for job in jobs:
        follow_order(Path(job.arguments[-1]))
    return {}


@pytest.mark.parametrize("there", [True, False])
def test_what_is_made_at_the_destination_while_parts_are_merged_stays(there: bool, tmp_path: Path) -> None:
    family, out = make_family(tmp_path), tmp_path / "out"
    call: dict[str, Any] = {"init": family.init, "method": "lerp", "coefficients": [1, 1, 1], "force": True}
    if there:
        save(out, weights(6))

    def saving(jobs: Sequence[Job], *_: Any) -> dict[str, str]:
        if there:
            out.rename(tmp_path / "before")
        save(out, weights(7))
        return run_here(jobs)

    with pytest.raises(OutputError, match=r"out: was made by something else .* stays as it is; the result waits in"):
        merge_in_parts(family.models, out, saving, **call)
    saved = weights(7)
    assert all(torch.equal(saved[name], each.load()) for name, each in warmkit.open_checkpoint(out).items())
    result = merge_in_parts(family.models, out, run_here, **call)
    assert result.resumed == len(saved)
    warmkit.verify(out)
    assert not list(tmp_path.glob(".out*"))


def test_a_part_whose_input_holds_nan_says_which(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    bad = weights(9)
    bad["model.layers.1.mlp.weight"][3, 4] = float("nan")
    models = [family.a, save(tmp_path / "bad", bad)]
    with pytest.raises(ClusterError, match=r"tensor 'model\.layers\.1\.mlp\.weight' of .*bad holds NaN"):
        merge_in_parts(models, tmp_path / "out", run_jobs, init=family.init, method="lerp", part_bytes=SMALL)
    assert not (tmp_path / "out").exists()


def test_parts_cover_every_tensor_once_and_keep_to_their_size(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    spec, init, options = merge_call(len(family.models), init=family.init, exclude=["*norm*"])
    job = prepare(spec, family.models, init, tmp_path / "out", options).job
    for most in (1, 1 << 14, 1 << 40):
        parts = divide(job, (), most)
        assert sorted(name for part in parts for name in part.groups) == sorted(job.groups)
        assert sorted(name for part in parts for name in part.exact) == sorted(job.exact)
        assert all(part.nbytes <= most or len(part.groups) + len(part.exact) == 1 for part in parts)
    assert len(divide(job, (), 1 << 40)) == 1
    assert divide(job, [*job.dtypes], 1) == []


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    told = list[tuple[int, int]]()
    merge_in_parts(
        family.models,
        tmp_path / "out",
        run_jobs,
        init=family.init,
        part_bytes=SMALL,
        advance=lambda *each: told.append(each),
    )
    assert sum(done for done, _ in told) <= told[0][1]
    assert told[0][1] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--address", "10.0.0.1:6379"], "--address names a Ray cluster; give it with --executor ray"),
        (["--executor", "slurm"], "--executor: expected threads or ray, found 'slurm'"),
    ],
)
def test_an_executor_that_is_none_is_refused(run: Run, family: Family, arguments: list[str], said: str) -> None:
    done = run("merge", family.a, family.b, "-o", "out", "--method", "lerp", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
