"""What the page about pipelines shows works."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml

from tests.cli.conftest import Rewards, rewards  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.conftest import Run, make_family
from tests.unit.training import tiny

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ci.md").read_text("utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
RECIPE = """\
merge:
  method: {method}
  init: {init}
  models: [{a}, {b}]
output:
  path: never
"""


def test_the_hook_lets_recipes_pass_that_can_be_merged_and_no_others(script: Run, tmp_path: Path) -> None:
    (hook,) = yaml.safe_load(BLOCKS[1])["repos"][0]["hooks"]
    family = make_family(tmp_path)
    places = {"init": family.init, "a": family.a, "b": family.b}
    (tmp_path / "merge-good.yaml").write_text(RECIPE.format(method="slerp", **places))
    (tmp_path / "merge-bad.yaml").write_text(RECIPE.format(method="slurp", **places))

    def commit(*recipes: str) -> subprocess.CompletedProcess[str]:
        assert all(re.search(hook["files"], f"recipes/{each}") for each in recipes)
        return script(f"{hook['entry']} {' '.join(recipes)}")

    assert commit("merge-good.yaml", "merge-good.yaml").returncode == 0
    done = commit("merge-good.yaml", "merge-bad.yaml")
    assert done.returncode == 1
    assert "merge-bad.yaml:2: merge.method: unknown method 'slurp'" in done.stderr
    assert not (tmp_path / "never").exists()


def test_the_steps_of_the_workflow_merge_and_its_gate_stops_a_bad_model(
    script: Run,
    rewards: Rewards,  # noqa: F811
    tmp_path: Path,
) -> None:
    steps = [each["run"] for each in yaml.safe_load(BLOCKS[0])["jobs"]["merge"]["steps"] if "run" in each]
    install, merge, gate = steps
    assert install.startswith("pip install")
    a, b, _ = rewards.llamas
    (tmp_path / "recipes").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "recipes" / "merge.yaml").write_text(f"merge: {{method: lerp, models: [{a}, {b}]}}")
    worse = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rewards.rows]
    tiny.write(tmp_path / "data" / "val.jsonl", worse)  # untrained, the models happen to like the others
    done = script(merge)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "merge.json").read_text())["method"] == "lerp"
    done = script(f"{gate}\necho not reached")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is below what was asked: val 0." in done.stderr
    assert json.loads((tmp_path / "evaluation.json").read_text())["individuals"]


def test_no_pipe_of_the_page_hides_a_failure() -> None:
    lines = [line for line in PAGE.splitlines() if re.match(r"\s*(- run: )?warmkit ", line)]
    assert len(lines) > 5
    assert not [line for line in lines if " | " in line]


def test_the_container_copies_what_is_there() -> None:
    lines = (ROOT / "Containerfile").read_text("utf-8").splitlines()
    sources = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert {"pyproject.toml", "warmkit"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
