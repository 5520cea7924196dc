"""What several processes do together: `accelerate launch ... together.py FOLDER` follows every recipe there, in order of name.

A recipe whose name has `killed` in it is interrupted after four steps, and followed again where it has `resumed` in it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from warmkit.recipes.recipe import read_recipe
from warmkit.training import distributed
from warmkit.training.policy import train_policy
from warmkit.training.policy_recipe import PolicyRecipe
from warmkit.training.recipe_sections import RewardModelRecipe, SftRecipe
from warmkit.training.reward_modeling import train_reward_model
from warmkit.training.sft import train_sft

LONG = 280  # seconds; all of it takes half a minute


class Stop:
    """A progress callback that interrupts all processes after the same step."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, done: int, total: int) -> None:
        self.left -= done
        if not self.left:
            raise KeyboardInterrupt


def follow(file: Path, stop: Stop | None) -> None:
    if file.stem.startswith("policy"):
        train_policy(read_recipe(file, PolicyRecipe, ()).content, advance=stop)
    elif file.stem.startswith("sft"):
        train_sft(read_recipe(file, SftRecipe, ()).content, advance=stop)
    else:
        train_reward_model(read_recipe(file, RewardModelRecipe, ()).content, advance=stop)


def main() -> None:
    faulthandler.dump_traceback_later(LONG, exit=True)  # processes that wait for each other for ever say where
    for each in sorted(Path(sys.argv[1]).glob("*.yaml")):
        if "killed" in each.stem:
            with contextlib.suppress(KeyboardInterrupt):
                follow(each, Stop(4))
        if "killed" not in each.stem or "resumed" in each.stem:
            follow(each, None)
    distributed.leave()


if __name__ == "__main__":
    main()
