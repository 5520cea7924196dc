"""Wrong words on the command line: each gets the one sentence that solves it."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.conftest import make_family
from tests.docs.cli_page import commands
from warmkit.merging.methods import METHODS, find_method
from warmkit.words import COMMANDS, OPTIONS, SENTENCES, SENTENCES_OF, VALUES
from warmkit.words import METHODS as METHOD_WORDS

SAID = {
    "merge a b --base sft": "warmkit merge has no --base; write --init sft (",
    "merge a b --base_model=sft": "has no --base_model; write --init sft",
    "merge a b -t 0.3": "write --lambda 0.3 (",
    "merge a b --weights 0.3,0.7": "write --coefficients 0.3,0.7",
    "merge a b --out o": "write --output o",
    "merge a b -out o": "warmkit merge has no -out; options of several letters have two dashes: --output",
    "merge a b -init sft": "two dashes: --init",
    "merge a b -o=out": "-o=out: an option of one letter has no =: -o out",
    "report a --out x": "write --output x (HTML file to write)",
    "inspect --model a": "without an option: warmkit inspect PATH",
    "liti --model a": "without an option: warmkit liti MODEL",
    "merge a b --bf16": "write --dtype bfloat16",
    "merge a b --etta 1": "did you mean --eta?",
    "merge a b --rank 3": "it is an option of extract-lora, eval rm",
    "merge a b --nothing": "warmkit merge has no --nothing; warmkit merge --help lists its options",
    "merge a b -o": "-o needs a value behind it (",
    "merge a b --stream=1": "--stream takes no value",
    "merge --coefficients 0.5 0.5 a b": "--coefficients 0.5 0.5: numbers have commas between them and no spaces: "
    "--coefficients 0.5,0.5",
    "merge a b --lambda 0.3 0.7": "--lambda 0.7; for a number per model: --coefficients 0.3,0.7",
    "merge a b --lambda half": "--lambda: expected a number, found 'half'",
    "merge": "warmkit merge: expected MODEL",
    "merge '' a": "warmkit merge: found an empty word; is a shell variable unset?",
    "merge a b --init ''": "an empty word behind --init",
    "merge --model a": "models are given without an option",
    "soup a b": "for example: warmkit soup A B C -o OUT",
    "soup a b --weights 1,2": "warmkit merge --method lerp --coefficients",
    "ema a b --decay 0.9": "1 less the decay",
    "score a --window 0": "--window: expected 1 or more, found '0'",
    "score a --window many": "--window: expected a whole number, found 'many'",
    "reproduce all --size smal": "--size: expected nano, small or large, found 'smal'; did you mean 'small'?",
    "reproduce all --seed 3": "--first-seed NUMBER",
    "inspect a b": "warmkit inspect: unexpected 'b'; it takes PATH",
    "slerp a b": "write warmkit merge --method slerp",
    "marge a b": "did you mean 'merge'?",
    "nothing": "warmkit has no command 'nothing'; warmkit --help lists them",
    "eval a": "warmkit eval rm a for a reward model, warmkit eval policy a for a policy",
    "train rm.yaml": "expected rm, sft or policy before the recipe: warmkit train rm rm.yaml",
    "train rm rm.yaml --lr 1": "--set SECTION.KEY=VALUE",
    "rm.yaml": "expected a command before the recipe: warmkit train rm rm.yaml",
}


@pytest.mark.parametrize("typed", SAID)
def test_a_wrong_word_gets_the_sentence_that_solves_it(typed: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "rm.yaml").write_text("rm: {steps: 1}\n")
    done = call(*shlex.split(typed), code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert SAID[typed] in done.stderr


def test_a_wrong_word_is_a_document_with_json(call: Call) -> None:
    done = call("merge", "a", "b", "--base", "sft", "--json", code=2)
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "UsageError"
    assert f"error: {error['message']}\n" == done.stderr


def test_what_is_advised_exists() -> None:
    known = commands()
    options = {option for command in known.values() for each in command.params for option in each.opts}
    assert {each for meant in OPTIONS.values() for each in meant} <= options
    assert {place for place, _ in SENTENCES_OF} <= set(known)
    for sentence in (*COMMANDS.values(), *SENTENCES_OF.values(), *(said for _, said in SENTENCES.values())):
        words = sentence.replace("{command}", "merge").split()
        called = [after for before, after in itertools.pairwise(words) if before == "warmkit"]
        assert {each.rstrip(":") for each in called} <= {name.split()[0] for name in known} | {
            "--version",
            "--help",
            "--install-completion",
        }
        assert {each.strip("-,:") for each in words if each.startswith("--")} - {"version", "help", "install-completion"} <= {
            each.strip("-") for each in options
        }


def test_no_word_of_another_tool_is_one_of_ours() -> None:
    assert not METHOD_WORDS.keys() & METHODS.keys()
    assert not VALUES.keys() & VALUES.values()
    assert not COMMANDS.keys() & {name.split()[0] for name in commands()}


@pytest.mark.parametrize("name", ["SLERP", "Slerp", "dare_ties", "Task_Arithmetic"])
def test_a_method_is_found_in_any_case(name: str) -> None:
    assert find_method(name).name == name.lower().replace("_", "-")


def test_a_method_is_recorded_under_its_own_name(call: Call, tmp_path: Path) -> None:
    make_family(tmp_path)
    call("merge", "--method", "LERP", "a", "b", "-o", "out")
    assert json.loads((tmp_path / "out" / "warmkit.json").read_text())["method"] == "lerp"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("linear", "is 'lerp'"), ("model_soup", "is 'uniform'"), ("nuslerp", "'slerp-weights'"), ("passthrough", "slices")],
)
def test_the_method_of_another_tool_is_said_in_our_words(name: str, sentence: str, call: Call) -> None:
    assert sentence in call("merge", "--method", name, "a", "b", "-o", "out", code=2).stderr
