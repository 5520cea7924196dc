"""The reward of averaged weights is that of the model that `warmkit.soup` writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import warmkit
from tests.unit.training import tiny
from warmkit.errors import MismatchError, UnsupportedError, UsageError
from warmkit.trl import WeightAveragedReward

PROMPTS, COMPLETIONS = ["the cat", "a dog runs", "the sun"], [" sings gold", " sleeps", " is grey and old"]
CHATS = [[{"role": "user", "content": each}] for each in PROMPTS]
ANSWERS = [[{"role": "assistant", "content": each}] for each in COMPLETIONS]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three reward models of one init."""
    folder, paths = tmp_path_factory.mktemp("members"), list[Path]()
    for seed in range(3):
        member = tiny.load(tiny.model("llama", folder / "init"))
        torch.manual_seed(seed)
        with torch.no_grad():
            for each in member.model.parameters():
                each.add_(0.1 * torch.randn_like(each))
        member.model.save_pretrained(folder / f"rm-{seed}")
        tiny.tokenizer("llama").save_pretrained(folder / f"rm-{seed}")
        paths.append(folder / f"rm-{seed}")
    return paths


def test_it_scores_as_the_soup_on_disk(members: list[Path], tmp_path: Path) -> None:
    soup = warmkit.load_reward_model(warmkit.soup(members, tmp_path / "soup").path, device="cpu")
    reward = WeightAveragedReward(members, device="cpu")
    told = reward(prompts=PROMPTS, completions=COMPLETIONS, completion_ids=[[1]] * 3, trainer_state=None, topic=["a"] * 3)
    assert told == soup.score(list(zip(PROMPTS, COMPLETIONS)))
    assert len(set(told)) == 3
    assert all(isinstance(each, float) for each in told)
    chats = reward(prompts=CHATS, completions=ANSWERS)
    assert chats == soup.score(list(zip(CHATS, ANSWERS)))
    assert chats != told


def test_coefficients_weigh_the_models(members: list[Path]) -> None:
    one = warmkit.load_reward_model(members[1], device="cpu").score(list(zip(PROMPTS, COMPLETIONS)))
    assert WeightAveragedReward(members, coefficients=[0, 1, 0], device="cpu")(PROMPTS, COMPLETIONS) == one
    assert WeightAveragedReward(members[1:2], device="cpu")(PROMPTS, COMPLETIONS) == one


def test_it_has_a_name_for_trls_columns(members: list[Path]) -> None:
    assert WeightAveragedReward(members, device="cpu").__name__ == "weight_averaged_reward"


def test_what_cannot_be_averaged_is_refused(members: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected reward models to average, found none"):
        WeightAveragedReward([])
    plain = tiny.model("llama", tmp_path / "plain")
    with pytest.raises(UnsupportedError, match="plain: has no scalar head"):
        WeightAveragedReward([members[0], plain])
    other = tiny.load(tiny.make(tmp_path / "other", "llama", hidden_size=64))
    other.model.save_pretrained(tmp_path / "other")
    with pytest.raises(MismatchError, match="other"):
        WeightAveragedReward([members[0], tmp_path / "other"])
