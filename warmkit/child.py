"""A job of a pipeline in a process of its own, which ends with the process that started it.

    python -m warmkit.child reward-model RECIPE
    python -m warmkit.child policy RECIPE
    python -m warmkit.child command RECIPE
    python -m warmkit.child merge-part ORDER

`pipelines.processes` starts it, here or on a node of a cluster, and reads the last line that begins with `error:`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from warmkit.errors import WarmkitError, out_of_memory
from warmkit.pipelines.processes import follow_parent

TERMINATED = 143


def _reward_model(recipe: Path) -> None:
    from warmkit.recipes.recipe import read_recipe
    from warmkit.training.recipe_sections import RewardModelRecipe
    from warmkit.training.reward_modeling import train_reward_model

    train_reward_model(read_recipe(recipe, RewardModelRecipe).content)


def _policy(recipe: Path) -> None:
    from warmkit.recipes.recipe import read_recipe
    from warmkit.training.policy import train_policy
    from warmkit.training.policy_recipe import PolicyRecipe

    train_policy(read_recipe(recipe, PolicyRecipe).content)


def _command(recipe: Path) -> None:
    from warmkit.recipes.recipe import read_recipe
    from warmkit.training.command_recipe import CommandRecipe
    from warmkit.training.command_run import run_command

    run_command(read_recipe(recipe, CommandRecipe).content)


def _merge_part(order: Path) -> None:
    from warmkit.pipelines.merge_parts import follow_order

    follow_order(order)


JOBS: dict[str, Callable[[Path], None]] = {
    "reward-model": _reward_model,
    "policy": _policy,
    "command": _command,
    "merge-part": _merge_part,
}


def main() -> None:
    """Do what the arguments say."""
    kind, file = sys.argv[1:]
    follow_parent()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        JOBS[kind](Path(file))
    except WarmkitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print("error: out of memory; lower the length (max_length), the batch or the jobs at a time", file=sys.stderr)
        raise SystemExit(WarmkitError.exit_code) from None


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    main()
