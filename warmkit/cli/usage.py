"""Wrong commands and options: one sentence that solves it, in the form of every other error."""

from __future__ import annotations

import difflib
import inspect
import itertools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from warmkit.cli.console import Console
from warmkit.errors import UsageError, WarmkitError, nearest
from warmkit.words import COMMANDS, OPTIONS, SENTENCES, SENTENCES_OF

INTERRUPTED = 130
LISTS = ("--coefficients", "--eta", "--density", "--gamma", "--epsilon", "--steps", "--n")
"""Options that take several numbers, with commas between them."""

MAY_BE_EMPTY = ("--criteria", "--key-variable", "--message", "--stop")


class Commands(TyperGroup):
    """Group of commands whose own errors look like those of the commands."""

    def main(self, *given: Any, standalone_mode: bool = True, **options: Any) -> Any:
        """Run a command; unless told otherwise, end the process with its exit code."""
        if not standalone_mode:
            return super().main(*given, standalone_mode=False, **options)
        told = given[0] if given else options.get("args")
        words = sys.argv[1:] if told is None else list(told)
        try:
            _check_words(self, words)
            code = super().main(*given, standalone_mode=False, **options)
        except UsageError as error:
            _say(words, str(error))
            code = UsageError.exit_code
        except typer.Abort:
            _say(words, "interrupted")
            code = INTERRUPTED
        except Exception as error:  # typer's, whose base class has moved from one version to another
            if not hasattr(error, "format_message"):
                raise
            if type(error).__name__ == "NoArgsIsHelpError":  # the help itself, which typer may have printed already
                print(error, file=sys.stderr, end="\n" if str(error) else "")
            else:
                _say(words, _sentence(self, words, error))
            code = WarmkitError.exit_code if type(error).__name__ == "FileError" else UsageError.exit_code
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return a command by its name.

        Raises:
            UsageError: With what the word may mean, if there is none.
        """
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UsageError(_unknown_command(_group_name(ctx), args[0], self.commands))
        return super().resolve_command(ctx, args)


def _say(words: Sequence[str], text: str) -> None:
    Console(quiet=False, verbose=False, json="--json" in words).error(text, UsageError.__name__)


def _group_name(ctx: Any) -> str:
    return " ".join(["warmkit", *ctx.command_path.split()[1:]]).replace("warmkit -m warmkit", "warmkit")


# ---- commands --------------------------------------------------------------------------------------------------------


def _unknown_command(group: str, word: str, commands: Mapping[str, Any]) -> str:
    """Say what to type instead of a word that is no command."""
    known = [name for name, command in commands.items() if not command.hidden]
    if group != "warmkit":
        return f"{group} {word}: " + (_for_recipe(group, word, known) or _for_model(group, word, known))
    if word.endswith((".yaml", ".yml")):
        return f"{word}: expected a command before the recipe{_told(_kind(word), word)}"
    name = word.lower().replace("_", "-")
    if name in commands:
        return f"warmkit has no command {word!r}; write warmkit {name}"
    if name in COMMANDS:
        return f"warmkit has no command {word!r}; write {COMMANDS[name].format(name=name)}"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"warmkit has no command {word!r}; " + (f"did you mean {near[0]!r}?" if near else "warmkit --help lists them")


def _for_recipe(group: str, word: str, known: Sequence[str]) -> str:
    """Say which command of a group takes a recipe; empty for other words."""
    if not word.endswith((".yaml", ".yml")):
        return ""
    return f"expected {_either(known)} before the recipe{_told(_kind(word), word)}"


def _kind(recipe: str) -> str:
    """Return the command of a recipe; empty if it cannot be read, or could be of several."""
    import yaml

    from warmkit.common.bounded_yaml import compose_documents
    from warmkit.recipes.kinds import command_of
    from warmkit.recipes.yaml_reader import written_keys

    try:
        documents = compose_documents(Path(recipe).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    found = command_of(written_keys(documents[0])) if documents else None
    return found[1] if found else ""


def _told(command: str, word: str) -> str:
    return f": warmkit {command} {word}" if command else ""


def _for_model(group: str, word: str, known: Sequence[str]) -> str:
    """Say which command of a group is meant, where a model stands in its place."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    if near:
        return f"no such command; did you mean {near[0]!r}?"
    if group == "warmkit eval":
        return (
            f"expected {_either(known)} before the models: warmkit eval rm {word} for a reward model, "
            f"warmkit eval policy {word} for a policy"
        )
    return f"expected {_either(known)}, found {word!r}"


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


# ---- options ---------------------------------------------------------------------------------------------------------


def _found(group: Any, words: Sequence[str]) -> tuple[str, Any, list[str]]:
    """Return the name of the command that words begin with, the command or group, and the words behind it."""
    name, rest = ["warmkit"], list(words)
    while rest and rest[0] in getattr(group, "commands", {}):
        group = group.commands[rest[0]]
        name.append(rest.pop(0))
    return " ".join(name), group, rest


def _options(command: Any) -> dict[str, Any]:
    """Return every option of a command by each of its names."""
    found = [each for each in command.params if each.param_type_name == "option"]
    return {name: each for each in found for name in (*each.opts, *each.secondary_opts)}


def _sentence(group: Any, words: Sequence[str], error: Any) -> str:
    """Return what an error of typer means here, and what to do."""
    name, command, rest = _found(group, words)
    kind, parameter, message = type(error).__name__, getattr(error, "param", None), error.format_message().rstrip(".")
    if kind == "NoSuchOption":
        return f"{name} has no {error.option_name}; {_in_place_of(group, name, command, error.option_name, rest)}"
    if kind == "MissingParameter" and parameter is not None:
        return f"{name}: expected {_shown(parameter)}{_meaning(parameter)}{_example(command)}"
    if kind == "BadParameter" and parameter is not None:
        return _bad_value(parameter, error.message, rest)
    if extra := re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", message):
        takes = " ".join(map(_shown, _arguments(command))) or "no words but options"
        return f"{name}: unexpected {extra[1]!r}; it takes {takes}{_example(command)}"
    if kind == "BadOptionUsage" and (option := _options(command).get(error.option_name)) is not None:
        needs = f"needs a value behind it{_meaning(option)}"
        return f"{name}: {error.option_name} {needs if 'requires' in message else 'takes no value; leave out the ='}"
    return f"{name}: {message[:1].lower()}{message[1:]}; {name} --help shows how it is used"


def _in_place_of(group: Any, name: str, command: Any, given: str, rest: Sequence[str]) -> str:
    """Say what to write in place of an option that a command lacks."""
    options, word = _options(command), given.lstrip("-").lower().replace("_", "-")
    place = name.removeprefix("warmkit").strip()
    meant = next((each for each in (f"--{word}", *OPTIONS.get(word, ())) if each in options), "")
    needed, sentence = SENTENCES.get(word, ("", ""))
    fits = not needed or needed in (*options, *map(_shown, _arguments(command)))
    return (
        SENTENCES_OF.get((place, word))
        or (meant and f"write {_with_value(meant, options[meant], given, rest)}")
        or (fits and sentence.format(command=place))
        or ("--set" in options and "keys of the recipe are set so: --set SECTION.KEY=VALUE (--set output.path=runs/b)")
        or _similar(group, word, options)
        or f"{name} --help lists its options"
    )


def _similar(group: Any, word: str, options: Mapping[str, Any]) -> str:
    """Name the option that is nearly called so, or the commands that have it; empty if there is neither."""
    if len(word) == 1:
        return ""
    near = difflib.get_close_matches(f"--{word}", [each for each in options if each.startswith("--")], n=1, cutoff=0.75)
    others = [each for each, other in _commands(group) if f"--{word}" in _options(other)]
    if near:
        return f"did you mean {near[0]}?"
    return f"it is an option of {', '.join(others)}" if others else ""


def _with_value(meant: str, option: Any, given: str, rest: Sequence[str]) -> str:
    """Write an option as it is meant, with the value that was given, and what it is."""
    value = next((word.partition("=")[2] for word in rest if word.startswith(f"{given}=")), "") or next(
        (rest[place + 1] for place, word in enumerate(rest[:-1]) if word == given), ""
    )
    takes_value = not getattr(option, "is_flag", False) and value and not value.startswith("-")
    return f"{meant} {value}{_meaning(option)}" if takes_value else f"{meant}{_meaning(option)}"


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command by its name behind `warmkit`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} ")
        elif not command.hidden:
            yield before + name, command


def _bad_value(parameter: Any, message: str, rest: Sequence[str]) -> str:
    """Say what an option takes, and what was found."""
    name = _shown(parameter)
    values = [word for before, word in itertools.pairwise(rest) if before in parameter.opts]
    values += [word.partition("=")[2] for word in rest if word.partition("=")[0] in parameter.opts and "=" in word]
    value = values[-1] if values else None
    found = "" if value is None else f", found {value!r}"
    if "one of" in message:
        choices = re.findall(r"'([^']*)'", message.partition("one of")[2])
        near = nearest(value, choices) if value is not None else ""
        return f"{name}: expected {_either(choices)}{found}{near if 'mean' in near else ''}"
    if bound := re.search(r"(?:greater than or equal to |x>=)([-\d.e]+)", message):
        return f"{name}: expected {bound[1].rstrip('.')} or more{found}"
    for part, expected in (("integer", "a whole number"), ("number", "a number"), ("float", "a number")):
        if part in message:
            return f"{name}: expected {expected}{found}"
    return f"{name}: {message.rstrip('.')}{found}"


def _arguments(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def _shown(parameter: Any) -> str:
    """Return an option's first name, or the word that stands for an argument."""
    return parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar or parameter.name.upper()


def _meaning(parameter: Any) -> str:
    """Return the first sentence of what a parameter is, in brackets."""
    text = (parameter.help or "").partition(". ")[0].rstrip(".")
    capital = text[1:2].isupper()  # of a name: JSON, LITI
    return f" ({text if capital else text[:1].lower() + text[1:]})" if text else ""


def _example(command: Any) -> str:
    """Return the first example of a command's help."""
    found = re.search(r"^- `(warmkit [^`]*)`", inspect.cleandoc(command.help or ""), re.MULTILINE)
    return f"; for example: {found[1]}" if found else ""


# ---- words that mean something else than what they look like ---------------------------------------------------------


def _check_words(group: Any, words: Sequence[str]) -> None:
    """Refuse what would be read as something else.

    Raises:
        UsageError: For `-out DIR`, which is `-o ut`, and `-o=DIR`, which is `-o '=DIR'`; for `--coefficients 0.3 0.7`, whose
            second number is a model.
    """
    name, command, rest = _found(group, words)
    options = _options(command)
    value_of = None
    for place, word in enumerate(rest):
        if word == "--":
            return
        if not word and value_of not in MAY_BE_EMPTY:
            raise UsageError(
                f"{name}: found an empty word{f' behind {value_of}' if value_of else ''}; is a shell variable unset?"
            )
        if value_of is not None:
            _check_numbers(name, value_of, rest[place:])
            value_of = None
            continue
        if re.fullmatch(r"-[A-Za-z][\w-]+", word) and (meant := _two_dashes(word, options)):
            raise UsageError(f"{name} has no {word}; options of several letters have two dashes: {meant}")
        if re.match("-[A-Za-z]=", word) and word[:2] in options:
            raise UsageError(f"{word}: an option of one letter has no =: {word[:2]} {word[3:]}")
        option = options.get(word)
        value_of = word if option is not None and not getattr(option, "is_flag", False) else None


def _two_dashes(word: str, options: Mapping[str, Any]) -> str:
    """Return the option that a word with one dash means; empty if none."""
    bare = word[1:].lower().replace("_", "-")
    return next((each for each in (f"--{bare}", *OPTIONS.get(bare, ())) if each in options), "")


def _check_numbers(name: str, option: str, rest: Sequence[str]) -> None:
    """Refuse numbers with spaces between them."""
    found: list[str] = []
    for word in rest:
        if not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?,?", word) or Path(word).exists():
            break
        found.append(word.rstrip(","))
    if len(found) < 2:
        return
    said = f"{option} {' '.join(rest[: len(found)])}"
    if option in LISTS or (option == "--lambda" and name != "warmkit merge"):
        raise UsageError(f"{said}: numbers have commas between them and no spaces: {option} {','.join(found)}")
    if option == "--lambda":
        raise UsageError(
            f"{said}: lambda is one number, the share of the second model: {option} {found[-1]}; "
            f"for a number per model: --coefficients {','.join(found)}"
        )
    raise UsageError(f"{said}: {option} takes one number")
