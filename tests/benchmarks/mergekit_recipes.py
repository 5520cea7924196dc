"""Run recipes of mergekit with both tools, their models replaced by small ones, and print the table of docs/mergekit.md.

    python -m tests.benchmarks.mergekit_recipes --mergekit /path/to/venv/bin/python --recipes FOLDER

FOLDER holds recipes (`*.yml`), in folders or not. Every model that a recipe names becomes a small one of as many layers as
the recipe asks for: base weights plus noise of its own. Each recipe runs as it is written, and once more in float32, where
rounding hides nothing. A difference is counted in roundings: half the distance between neighbours, of the type that is written,
at the largest element of the tensor.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from click.testing import Result
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

import warmkit
from warmkit.cli.app import app

TOKENS, LAYERS = 48, 4
NOISE = 0.06
EQUAL = 4.0  # roundings: mergekit rounds the inputs, the sum and the result
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
THEIRS = """
import json, sys, traceback, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
for line in sys.stdin:
    recipe, output = json.loads(line)
    try:
        with open(recipe) as file:
            content = yaml.safe_load(file)
        run_merge(MergeConfiguration.model_validate(content), output, MergeOptions(quiet=True))
        print("RESULT", json.dumps(""), flush=True)
    except Exception as error:
        print("RESULT", json.dumps(f"{type(error).__name__}: {error}"), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one recipe.

    Attributes:
        refused: Why warmkit did not run it.
        failed: Why mergekit did not.
        roundings: Largest difference; None without both results.
        where: The tensor that it is in.
        apart: Share of the elements that differ by more than rounding.
        beside: What differs besides the weights.
    """

    refused: str = ""
    failed: str = ""
    roundings: float | None = None
    where: str = ""
    apart: float = 0.0
    beside: str = ""


def model_names(content: Any) -> dict[str, int]:
    """Return every model that a recipe names, and how many layers it must have."""
    found: dict[str, int] = {}

    def walk(value: Any, key: str = "") -> None:
        if isinstance(value, dict):
            if isinstance(value.get("model"), str) and "layer_range" in value:
                found[value["model"]] = max(found.get(value["model"], 0), value["layer_range"][1])
            for name, inner in value.items():
                walk(inner, name)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, key)
        elif isinstance(value, str) and key in ("model", "base_model", "source_model"):
            found.setdefault(value, 0)

    walk(content)
    layers = max([*found.values(), 0]) or LAYERS
    return {name: count or layers for name, count in found.items()}


def build(folder: Path, name: str, seed: int, layers: int) -> None:
    """Write a small model with a tokenizer: the architecture that its name suggests."""
    kind = "gpt2" if name.startswith("gpt2") else "mistral" if "istral" in name else "qwen2" if "Qwen" in name else "llama"
    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
    if kind == "gpt2":
        small = {"n_embd": 16, "n_layer": layers, "n_head": 2, "n_positions": 32}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](vocab_size=TOKENS, initializer_range=0.2, bos_token_id=0, eos_token_id=1, **small)
    model = AutoModelForCausalLM.from_config(config)
    own = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(NOISE * torch.randn(each.shape, generator=own))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(TOKENS)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="w0", eos_token="w1", unk_token="w2", chat_template=TEMPLATE
    )


class Mergekit:
    """One process of mergekit for all recipes: importing it takes longer than a merge."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, "-c", THEIRS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def run(self, recipe: Path, output: Path) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(recipe), str(output)]) + "\n")
        self._process.stdin.flush()
        line = next(line for line in self._process.stdout if line.startswith("RESULT"))
        return json.loads(line.removeprefix("RESULT "))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def ours(recipe: Path, output: Path) -> str:
    done: Result = CliRunner().invoke(app, ["merge", str(recipe), "-o", str(output), "--threads", "1"])
    if done.exit_code == 0:
        return ""
    assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit), done.exception
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return re.sub(r"; (choose from|did you mean).*", "", re.sub(r"^error: .*?:\d+: ", "", lines[0]))


def compare(theirs: Path, mine: Path) -> Outcome:
    first, second = warmkit.open_checkpoint(theirs), warmkit.open_checkpoint(mine)
    names = set(first) & set(second)
    extra = sorted((set(first) | set(second)) - names - {"lm_head.weight"})
    worst, where, apart, total = 0.0, "", 0, 0
    for name in sorted(names):
        a, b = first[name].load(), second[name].load()
        assert a.shape == b.shape, (name, a.shape, b.shape)
        unit = max(UNIT[a.dtype], UNIT[b.dtype])
        far = (a.double() - b.double()).abs() / (unit * a.double().abs().max())
        apart, total = apart + int((far > EQUAL).sum()), total + far.numel()
        worst, where = max((worst, where), (float(far.max()), name))
    beside = [f"tensors {extra}"] if extra else []
    keys = ("num_hidden_layers", "n_layer", "vocab_size")
    beside += [key for key in keys if first.config.get(key) != second.config.get(key)]
    beside += ["type"] if {first[n].dtype.name for n in names} != {second[n].dtype.name for n in names} else []
    beside += ["chat template"] if template(theirs) != template(mine) else []
    return Outcome(roundings=worst, where=where, apart=apart / total, beside=", ".join(beside))


def template(folder: Path) -> str:
    path = folder / "chat_template.jinja"
    return path.read_text().strip() if path.is_file() else ""


def run(text: str, models: dict[str, Path], folder: Path, mergekit: Mergekit) -> Outcome:
    for number, name in enumerate(sorted(models, key=len, reverse=True)):
        text = re.sub(rf'(?<=[:\s"]){re.escape(name)}(?=["\s,}}]|$)', f"@{number}@", text, flags=re.MULTILINE)
    for number, name in enumerate(sorted(models, key=len, reverse=True)):
        text = text.replace(f"@{number}@", str(models[name]))
    recipe = folder / "recipe.yml"
    recipe.write_text(text)
    refused = ours(recipe, folder / "ours")
    failed = mergekit.run(recipe, folder / "theirs")
    if refused:
        return Outcome(refused=refused.replace(f"{folder.parent}/", ""), failed=failed)
    return Outcome(failed=failed) if failed else compare(folder / "theirs", folder / "ours")


def measure(path: Path, folder: Path, mergekit: Mergekit) -> tuple[Outcome, Outcome | None]:
    text = path.read_text()
    documents = list(yaml.safe_load_all(text))
    models: dict[str, Path] = {}
    for seed, (name, layers) in enumerate(model_names(documents).items()):
        models[name] = folder / re.sub(r"\W", "-", name)
        build(models[name], name, seed + 1, layers)
    outcomes: list[Outcome] = []
    for kind, content in (("written", text), ("wide", re.sub(r"(?m)^(out_)?dtype:.*$", "", text))):
        (folder / kind).mkdir()
        outcomes.append(run(content, models, folder / kind, mergekit))
        if outcomes[0].refused:
            return outcomes[0], None
    return outcomes[0], outcomes[1]


def verdict(written: Outcome, wide: Outcome | None) -> str:
    if written.refused:
        return f"refused{' by both' if written.failed else ''}: {written.refused}"
    if written.failed:
        return f"runs; mergekit does not: {written.failed.splitlines()[0][:100]}"
    assert wide is not None
    assert written.roundings is not None
    assert wide.roundings is not None
    equal = "equal within rounding"
    if max(written.roundings, wide.roundings) > EQUAL:
        worst = max(written, wide, key=lambda outcome: outcome.apart)
        equal = f"differs in {worst.apart:.2%} of elements" + (" as written" if wide.roundings <= EQUAL else "")
    return equal + (f"; beside: {written.beside}" if written.beside else "")


def number(outcome: Outcome | None) -> str:
    return "" if outcome is None or outcome.roundings is None else f"{outcome.roundings:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", required=True, help="Python of a virtual environment that has mergekit.")
    parser.add_argument("--recipes", required=True, type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    mergekit = Mergekit(arguments.mergekit)
    print("| recipe | result | as written | in float32 |\n|---|---|---|---|")
    for path in sorted(arguments.recipes.rglob("*.yml")):
        with tempfile.TemporaryDirectory() as name:
            written, wide = measure(path, Path(name), mergekit)
        title = path.relative_to(arguments.recipes).with_suffix("")
        print(f"| {title} | {verdict(written, wide)} | {number(written)} | {number(wide)} |", flush=True)
    mergekit.close()


if __name__ == "__main__":
    main()
