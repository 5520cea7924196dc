"""Rewards: what each kind gives, their sum, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.unit.training import tiny
from warmkit.data.prompts import Prompt
from warmkit.errors import ScoreError, UnsupportedError, UsageError
from warmkit.evaluation.policies import EvaluationSettings
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evaluation.rewards import open_terms, weighted_sum
from warmkit.modeling.reward_model import load_scorer
from warmkit.training.reward_modeling import save_reward_model
from warmkit.training.run_warnings import PATIENCE, Watch

pytest.importorskip("transformers")

TOY = "tests.unit.training.toy:"
PROMPTS = [Prompt("the cat", "a:1"), Prompt([{"role": "user", "content": "grün"}], "a:2"), Prompt("old", "a:3")]
COMPLETIONS = [" sleeps", " river e\nee", ""]


def scores(term: RewardTerm, prompts: Sequence[Prompt] = PROMPTS) -> list[float]:
    return open_terms([term])[0](prompts, COMPLETIONS).tolist()


def command(code: str) -> RewardTerm:
    return RewardTerm(command=f'{sys.executable} -c "{code}"')


def reward_model(folder: Path, seed: int) -> str:
    made = tiny.load(tiny.make(folder / f"init-{seed}", "llama", seed))
    torch.manual_seed(seed)
    with torch.no_grad():
        made.head.weight.normal_()
    save_reward_model(made, folder / f"rm-{seed}")
    return str(folder / f"rm-{seed}")


def test_a_function_gets_two_lists_of_text() -> None:
    assert scores(RewardTerm(function=TOY + "count_e")) == [2.0, 4.0, 0.0]


def test_a_command_reads_lines_of_json() -> None:
    code = "import json,sys; [print(len(json.loads(line)['completion'])) for line in sys.stdin]"
    assert scores(command(code)) == [7.0, 11.0, 0.0]
    code = "import json,sys; [print(len(json.loads(line)['prompt'][0])) for line in sys.stdin]"
    assert scores(command(code)) == [1.0, 2.0, 1.0], "messages stay messages"


def test_a_reward_model_scores_as_it_does_elsewhere_and_an_ensemble_is_the_mean(tmp_path: Path) -> None:
    paths = [reward_model(tmp_path, seed) for seed in (0, 1)]
    texts = [(prompt.content, each) for prompt, each in zip(PROMPTS, COMPLETIONS)]
    single = [load_scorer(path).score(texts) for path in paths]
    assert scores(RewardTerm(model=paths[0])) == pytest.approx(single[0])
    assert scores(RewardTerm(model=paths)) == pytest.approx([(a + b) / 2 for a, b in zip(*single)])
    assert len(set(single[0])) == 3


def test_the_sum_is_weighted() -> None:
    terms = open_terms([RewardTerm(function=TOY + "count_e", weight=2.0), RewardTerm(function=TOY + "length", weight=-0.5)])
    assert weighted_sum(terms, [term(PROMPTS, COMPLETIONS) for term in terms]).tolist() == [0.5, 2.5, 0.0]


FAILURES = {
    "wrong count": (RewardTerm(function=TOY + "too_few"), "reward too_few: expected 3 numbers, one a completion, found 2"),
    "not a number": (RewardTerm(function=TOY + "not_a_number"), "reward not_a_number: nan for the completion ' sleeps' of a:1"),
    "exception": (RewardTerm(function=TOY + "broken"), "toy:broken: KeyError: 'gold'"),
    "failing command": (command("import sys; sys.exit('no key')"), "exited with 1, said: no key"),
    "silent command": (command("pass"), "reward command: expected 3 numbers, one a completion, found 0"),
    "words": (command("print('good')"), "expected a number a line, found 'good'"),
    "infinite": (command("print('inf\\n1\\n2')"), "reward command: inf for the completion"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_reward_that_cannot_be_used_says_why(failure: str) -> None:
    term, expected = FAILURES[failure]
    with pytest.raises(ScoreError) as raised:
        scores(term)
    assert expected in str(raised.value)


@pytest.mark.parametrize("function", ["tests.unit.training.toy:gold", "no_such_module:f", "tests.unit.training.toy:E"])
def test_a_function_that_is_none_is_a_mistake_in_the_recipe(function: str) -> None:
    with pytest.raises(UsageError, match=f"reward {function}: "):
        open_terms([RewardTerm(function=function)])


def test_a_language_model_is_no_reward(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no scalar head"):
        open_terms([RewardTerm(model=str(tiny.model("llama", tmp_path / "llama")))])


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({"reward_std": 0.0, "without_eos": 0.5, "length": 3.0}, "the reward was the same"),
        ({"reward_std": 1.0, "without_eos": 1.0, "length": 6.0}, "ended by itself; raise policy.max_new_tokens"),
        ({"reward_std": 1.0, "without_eos": 0.0, "length": 1.0}, "was empty; raise policy.beta"),
        ({"without_eos": 0.5, "length": 3.0}, None),
    ],
)
def test_a_run_that_goes_nowhere_is_reported_once(values: dict[str, float], warning: str | None) -> None:
    watch = Watch()
    said = [watch.look(values) for _ in range(2 * PATIENCE)]
    assert [step for step, each in enumerate(said, 1) if each] == ([PATIENCE] if warning else [])
    if warning:
        assert warning in said[PATIENCE - 1][0]
        assert watch.look({"reward_std": 1.0, "without_eos": 0.5, "length": 3.0}) == []
        assert set(watch.counts.values()) == {0}


@pytest.mark.parametrize("key", ["rewards", "controls"])
def test_two_terms_of_one_name_are_refused_in_recipes_and_in_evaluations(key: str) -> None:
    twice = [RewardTerm(function="a:gold"), RewardTerm(function="b:gold")]
    with pytest.raises(UsageError, match=f"{key}: two terms are called 'gold'; give them names"):
        EvaluationSettings("prompts.jsonl", **{"rewards": [RewardTerm(model="rm")], key: twice})
