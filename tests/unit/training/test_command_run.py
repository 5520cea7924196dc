"""One run of a command: what it is given, which of its checkpoints is taken, and what is refused in one line."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training import tiny
from warmkit.errors import ChangedError, OutputError, TrainingError, UsageError
from warmkit.modeling.causal_model import load_causal_model
from warmkit.training.command_line import check_template, fill
from warmkit.training.command_recipe import CommandRecipe, OneCommand, StartSection
from warmkit.training.command_run import run_command, same_weights, taken_from
from warmkit.training.recipe_sections import RunOutput

TRAINER = Path(__file__).parents[1] / "pipelines" / "programs" / "trainer.py"
TRAIN = f"{sys.executable} {TRAINER} --init {{init}} --output {{output}} --seed {{seed}}"


def recipe(folder: Path, line: str = TRAIN, name: str = "run 1", **how: Any) -> CommandRecipe:
    init = tiny.model("llama", folder / "the sft")
    values = {"seed": 3, "order": 4, "member": 1, **how.pop("values", {})}
    return CommandRecipe(StartSection(str(init)), OneCommand(line, values, **how), RunOutput(str(folder / name)))


def refused(content: CommandRecipe) -> str:
    """Return what is said of a run that fails: one line."""
    with pytest.raises(TrainingError) as error:
        run_command(content)
    assert "\n" not in str(error.value)
    assert not (Path(content.output.path) / "summary.json").exists()
    return str(error.value)


# ---- what it is given -----------------------------------------------------------------------------------------------


def test_values_reach_the_arguments_and_the_environment_whatever_they_hold(tmp_path: Path) -> None:
    odd = "a 'b' $(touch bad) \"c\"; d"
    seen = tmp_path / "seen.json"
    show = "import json, os, sys; json.dump([sys.argv[2:], dict(os.environ)], open(sys.argv[1], 'w'))"
    (tmp_path / "show.py").write_text(show)
    line = f"cd '{tmp_path}' && {sys.executable} show.py {seen} {{note}} \"{{init}}\" {{seed}} ${{HOME}} {{{{x}}}} && false"
    content = recipe(tmp_path, line, values={"note": odd})
    refused(content)
    arguments, environment = json.loads(seen.read_text())
    init = str((tmp_path / "the sft").absolute())
    assert arguments[:3] == [odd, init, "3"]
    assert arguments[-1] == "{x}"
    assert not (tmp_path / "bad").exists()
    found = {name: environment[f"WARMKIT_{name.upper()}"] for name in ("note", "init", "seed", "order", "member", "output")}
    output = str(tmp_path / "run 1" / "output")
    assert found == {"note": odd, "init": init, "seed": "3", "order": "4", "member": "1", "output": output}


def test_more_than_nine_values_are_told_apart() -> None:
    values = {f"n{number}": f"<{number}>" for number in range(12)}
    line, arguments = fill("x {n0} {n11}", values)
    assert line == 'x "$1" "${12}"'
    assert arguments[11] == "<11>"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train {outptu}", r"command.run: unknown placeholder \{outptu\}; did you mean 'output'\?"),
        ("train {lr} {output}", r"unknown placeholder \{lr\}; choose from: init, output"),
        ("train {init}", r"command.run: expected \{output\} beside \{init\}"),
    ],
)
def test_a_placeholder_that_nothing_fills_is_refused(line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_template(line, ["init", "output"])
    check_template("sbatch --wait train.sbatch", ["init", "output"])


# ---- what it leaves -------------------------------------------------------------------------------------------------


def test_the_newest_checkpoint_is_the_member_and_costs_no_disk(tmp_path: Path) -> None:
    content = recipe(tmp_path)
    summary = run_command(content)
    run = Path(content.output.path)
    assert summary["member"] == "output/checkpoint-2"
    assert tiny.bytes_of(run / "model") == tiny.bytes_of(run / "output/checkpoint-2")
    assert (run / "model/model.safetensors").samefile(run / "output/checkpoint-2/model.safetensors")
    assert (run / "model/tokenizer.json").read_bytes() == (tmp_path / "the sft/tokenizer.json").read_bytes()
    load_causal_model(str(run / "model"))
    assert [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1.0, 0.5]
    assert (run / "log.txt").read_text().splitlines()[-1] == "step 2"


def test_a_finished_run_is_not_repeated_and_another_one_is_refused(tmp_path: Path) -> None:
    content = recipe(tmp_path, f"echo once >> {tmp_path}/starts && {TRAIN}")
    first = run_command(content)
    assert run_command(replace(content, command=replace(content.command, limit="1h"))) == first
    assert (tmp_path / "starts").read_text() == "once\n"
    with pytest.raises(OutputError, match="another recipe"):
        run_command(replace(content, command=replace(content.command, values={"seed": 4})))
    shutil.rmtree(tmp_path / "the sft")
    tiny.make(tmp_path / "the sft", "llama", seed=9)
    (tmp_path / "run 1/summary.json").unlink()
    with pytest.raises(ChangedError, match=r"began with another model\.path"):
        run_command(content)


def test_a_run_that_failed_starts_again_in_its_output(tmp_path: Path) -> None:
    content = recipe(tmp_path, f"mkdir {{output}}/begun 2>/dev/null && exit 7; {TRAIN}")
    assert "exited with 7" in refused(content)
    assert run_command(content)["member"] == "output/checkpoint-2"
    assert (tmp_path / "run 1/log.txt").read_text().count("$ mkdir") == 2


SAVES = """
import sys, torch
from safetensors.torch import load_file
state = {{name: each + 0.01 for name, each in load_file(sys.argv[1] + "/model.safetensors").items()}}
{save}
"""


@pytest.mark.usefixtures("children_are_forks")
@pytest.mark.parametrize(
    "save",
    [
        "torch.save({'state_dict': state}, sys.argv[2] + '/epoch=0-step=7.ckpt')",
        "import os; os.mkdir(sys.argv[2] + '/final'); torch.save(state, sys.argv[2] + '/final/pytorch_model.bin')",
        "import torch.distributed.checkpoint as dcp; dcp.save(state, checkpoint_id=sys.argv[2] + '/step_7', no_dist=True)",
    ],
    ids=["Lightning's file", "pytorch_model.bin in the only folder", "distributed"],
)
def test_other_containers_become_a_plain_model(save: str, tmp_path: Path) -> None:
    (tmp_path / "save.py").write_text(SAVES.format(save=save))
    content = recipe(tmp_path, f"{sys.executable} {tmp_path}/save.py {{init}} {{output}}")
    run_command(content)
    model, init = tmp_path / "run 1/model", tiny.tensors(tmp_path / "the sft")
    found = tiny.tensors(model)
    assert found.keys() == init.keys()
    assert all(torch.equal(found[name], init[name] + 0.01) for name in init)
    load_causal_model(str(model))


ADAPTER = """
import sys, peft, torch
from transformers import AutoModelForCausalLM
model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(sys.argv[1]), peft.LoraConfig(r=2, target_modules=["q_proj"]))
if sys.argv[3] == "moved":
    for name, each in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(each, 0.1)
model.save_pretrained(sys.argv[2] + "/checkpoint-5")
model.merge_and_unload().save_pretrained(sys.argv[2] + "/merged")
"""


@pytest.mark.usefixtures("children_are_forks")
def test_an_adapter_is_merged_with_its_init_and_one_that_learned_nothing_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    (tmp_path / "adapt.py").write_text(ADAPTER)
    line = f"{sys.executable} {tmp_path}/adapt.py {{init}} {{output}} {{how}}"
    assert "left its init unchanged" in refused(recipe(tmp_path, line, "still", values={"how": "still"}))
    run_command(recipe(tmp_path, line, values={"how": "moved"}))
    found, theirs = tiny.tensors(tmp_path / "run 1/model"), tiny.tensors(tmp_path / "run 1/output/merged")
    assert all(torch.allclose(found[name], theirs[name], atol=1e-6) for name in theirs)


def test_the_best_and_a_step_are_taken_where_the_recipe_says_so(tmp_path: Path) -> None:
    content = recipe(tmp_path, f"{TRAIN} --steps 1 2 3 --best 2", take="best")
    assert run_command(content)["member"] == "output/checkpoint-2"
    output = tmp_path / "run 1/output"
    assert taken_from(output, 1).name == "checkpoint-1"
    assert taken_from(output).name == "checkpoint-3"
    with pytest.raises(TrainingError, match="has no checkpoint of step 4; it has 1, 2, 3"):
        taken_from(output, 4)
    shutil.rmtree(output / "checkpoint-2")
    with pytest.raises(TrainingError, match=r"names checkpoint-2, which is not in .* \(save_total_limit\?\)"):
        taken_from(output, "best")


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_a_command_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    said = refused(recipe(tmp_path, "for i in 1 2 3 4 5; do echo line $i; done; echo 'out of luck' >&2; exit 3"))
    log = tmp_path / "run 1" / "log.txt"
    assert said == f"the command exited with 3; the end of {log}: line 4 / line 5 / out of luck"


def test_a_command_that_says_nothing_is_told_as_well_after_a_start_that_said_something(tmp_path: Path) -> None:
    content = recipe(tmp_path, f"test -e '{tmp_path}/quiet' || echo loud; exit 1")
    assert refused(content).endswith("log.txt: loud")
    (tmp_path / "quiet").touch()
    assert "exited with 1; it printed nothing (" in refused(content)


@pytest.mark.parametrize("start", ["sh -c", "setsid sh -c"])
def test_a_command_past_its_limit_is_ended_with_its_children(start: str, tmp_path: Path) -> None:
    began, alive = time.monotonic(), tmp_path / "alive"
    line = f"{start} 'while true; do date +%N > {alive}; sleep 0.05; done' & sleep 60"
    said = refused(recipe(tmp_path, line, limit="1s"))
    assert said.startswith("the command ran past its limit of 1 s and was ended (command.limit); ")
    assert time.monotonic() - began < 30
    last = alive.read_text()
    time.sleep(0.3)
    assert alive.read_text() == last


LEFT = {
    "nothing": ("true", "the command left nothing in .*output that is a checkpoint"),
    "other files": ("echo 1 > {output}/results.json", "the command left nothing in"),
    "the init": (
        "cp -r {init} {output}/checkpoint-1",
        "the command left its init unchanged in .*checkpoint-1: every weight is",
    ),
    "another architecture": ("cp -r {other} {output}/checkpoint-1", "left another architecture than that of its init: .*shape"),
    "two models": (
        "cp -r {other} {output}/a; cp -r {init} {output}/b",
        "several models in .*, none with a step in its name: a, b",
    ),
    "a broken file": (
        "cp -r {init} {output}/step-1 && truncate -s 100 {output}/step-1/model.safetensors",
        "the command left another model than it was given: .*model.safetensors",
    ),
}


@pytest.mark.parametrize("left", LEFT)
def test_what_is_no_member_is_refused(left: str, tmp_path: Path) -> None:
    line, expected = LEFT[left]
    other = tiny.make(tmp_path / "other", "llama", hidden_size=16, intermediate_size=24)
    said = refused(recipe(tmp_path, line, values={"other": str(other)}))
    assert re.search(expected, said), said


NO_BEST = {
    "no state": ("rm {output}/checkpoint-*/trainer_state.json", "command.take: best needs the trainer_state.json"),
    "no best": ("true", "names no best_model_checkpoint; the trainer needs metric_for_best_model"),
}


@pytest.mark.parametrize("why", NO_BEST)
def test_a_best_that_nothing_names_is_refused(why: str, tmp_path: Path) -> None:
    then, expected = NO_BEST[why]
    assert expected in refused(recipe(tmp_path, f"{TRAIN} && {then}", take="best"))


def test_an_init_in_another_type_is_the_init_still(tmp_path: Path) -> None:
    init = tiny.model("llama", tmp_path / "sft")
    load_causal_model(str(init)).to(torch.bfloat16).save_pretrained(tmp_path / "narrow")
    assert same_weights(str(init), str(tmp_path / "narrow"))
    assert not same_weights(str(init), str(tiny.make(tmp_path / "other", "llama", seed=5)))
