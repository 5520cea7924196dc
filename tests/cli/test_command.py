"""What a function becomes as a command: groups of options, and commands of a group that stands alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from warmkit.cli.app import app
from warmkit.cli.command import Command, argument, command, option, required
from warmkit.cli.console import Console


@dataclass(frozen=True)
class Cooking:
    heat: int = option(3, "How hot.", "--heat", "-H", min=1)
    with_salt: bool = option(False, "Salted.")
    spices: Annotated[list[str] | None, typer.Option("--spice")] = None


@dataclass(frozen=True)
class Baking(Cooking):
    heat: int = option(200, "How hot the oven is.")


def run(group: type, words: list[str]) -> Any:
    arrived: list[Any] = []

    def cook(console: Console, *, dish: str = argument("DISH", "What is cooked."), how: Any) -> None:
        assert not console.quiet
        arrived.extend([dish, how])

    cook.__annotations__["how"] = group
    alone = typer.Typer()
    alone.command(cls=Command)(command()(cook))
    done = CliRunner().invoke(alone, words)
    assert done.exit_code == 0, done.output
    return arrived


def test_fields_of_a_dataclass_are_options_and_an_instance_arrives() -> None:
    assert run(Cooking, ["soup"]) == ["soup", Cooking()]
    words = ["soup", "-H", "7", "--with-salt", "--spice", "a", "--spice", "b"]
    assert run(Cooking, words) == ["soup", Cooking(7, True, ["a", "b"])]


def test_a_group_that_builds_on_another_says_an_option_anew() -> None:
    assert run(Baking, ["bread"]) == ["bread", replace(Baking(), heat=200)]
    assert run(Baking, ["bread", "--heat", "0"]) == ["bread", Baking(heat=0)]  # the bound was of the other one


def test_what_must_be_given_is_asked_for() -> None:
    def serve(console: Console, dish: str = argument("DISH", "What."), plates: int = required("How many.")) -> None:
        print(dish, plates + 1)

    alone = typer.Typer()
    alone.command(cls=Command)(command()(serve))
    assert CliRunner().invoke(alone, ["soup", "--plates", "2"]).output == "soup 3\n"
    assert "--plates" in CliRunner().invoke(alone, ["soup"]).stderr
    assert "DISH" in CliRunner().invoke(alone, ["--plates", "2"]).stderr


def test_an_option_that_two_groups_declare_is_refused() -> None:
    def cook(console: Console, one: Cooking, two: Baking) -> None: ...

    alone = typer.Typer()
    alone.command(cls=Command)(command()(cook))
    with pytest.raises(AssertionError, match="cook: an option is declared twice"):
        CliRunner().invoke(alone, catch_exceptions=False)


@pytest.mark.parametrize(("group", "commands"), [("train", ("rm", "sft", "policy")), ("eval", ("rm", "policy"))])
def test_a_group_of_commands_alone_prints_its_help(group: str, commands: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [group])
    assert done.exit_code == 2
    assert f"{group} [OPTIONS] COMMAND" in done.output
    assert all(f" {each} " in done.output for each in commands)
    assert "error" not in done.output
