"""Merge twelve architectures across versions of transformers, load the results in both, and print a table. By hand:

    python tests/data/layouts/matrix.py DIR PYTHON_OF_TRANSFORMERS_4 [ARCHITECTURE ...]

`4` and `5` are what the two versions write, `memory` is the state dict of 5, written by safetensors. A merge is right where
every tensor that transformers 5 loads from it, and its logits, are those of the mean in memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers as T
from architectures import MAKERS

PAIRS = (("4", "4"), ("5", "5"), ("4", "5"), ("5", "4"), ("4", "memory"), ("memory", "4"), ("5", "memory"), ("memory", "5"))
CLOSE = {"rtol": 0.0, "atol": 2e-5}


def logits(model: Any) -> Any:
    """Return the logits of a fixed text, or of fixed sounds and a text."""
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        if "Whisper" in type(model).__name__:
            return model(input_features=torch.linspace(-1, 1, 8 * 32).reshape(1, 8, 32), decoder_input_ids=ids).logits
        return model(input_ids=ids, **({"decoder_input_ids": ids} if "T5" in type(model).__name__ else {})).logits


def load(name: str, path: Path) -> tuple[Any, list[str]]:
    """Load a model, and what was missing in its file."""
    kind = type(MAKERS[name]())
    model, told = kind.from_pretrained(path, output_loading_info=True, dtype=torch.float32)
    return model.eval(), sorted([*told["missing_keys"], *told["unexpected_keys"]])


def in_four(home: Path, name: str) -> str:
    """Say how transformers 4 loads every merge of an architecture; run by its Python."""
    told: dict[str, str] = {}
    for folder in sorted((home / "merged" / name).iterdir()):
        if not (folder / "config.json").is_file():
            continue
        try:
            model, lost = load(name, folder)
            wanted = torch.load(home / "merged" / name / f"{folder.name}.pt")
            same = torch.allclose(logits(model), wanted, **CLOSE)
            told[folder.name] = f"{len(lost)} names do not fit" if lost else "same logits" if same else "other logits"
        except Exception as error:
            told[folder.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    return json.dumps(told)


def in_five(home: Path, name: str, one: str, two: str) -> str:
    """Merge two models and say whether the result is right."""
    import warmkit

    out = home / "merged" / name / f"{one}-{two}"
    paths = [home / f"a{one}" / name, home / f"b{two}" / name]
    paths = [home / f"{'ab'[n]}5" / f"{name}-memory" if kind == "memory" else paths[n] for n, kind in enumerate((one, two))]
    warmkit.merge(paths, out, method="uniform", force=True, advance=False)
    (mine, lost), (first, _), (second, _) = (load(name, path) for path in (out, *paths))
    a, b = first.state_dict(), second.state_dict()
    mean = {key: (value.double() + b[key].double()).mul(0.5).to(value.dtype) for key, value in a.items()}
    if lost:
        return f"{len(lost)} names do not fit: {lost[0]}"
    strange = [key for key, value in mine.state_dict().items() if not torch.allclose(value, mean[key], rtol=0, atol=1e-7)]
    first.load_state_dict(mean)
    torch.save(logits(mine), home / "merged" / name / f"{one}-{two}.pt")
    if strange:
        return f"{len(strange)} tensors differ: {strange[0]}"
    return "same logits" if torch.equal(logits(first), logits(mine)) else "other logits"


def main(home: Path, four: str) -> None:
    """Make the models, merge and print."""
    maker = str(Path(__file__).with_name("architectures.py"))
    for seed, version in enumerate(("a4", "b4", "a5", "b5"), 1):
        if not (home / version).exists():
            python = four if version.endswith("4") else sys.executable
            subprocess.run([python, maker, str(home / version), str(seed)], check=True, capture_output=True)
    print("| architecture | inputs | transformers", T.__version__, "| transformers 4.57.6 |\n| --- | --- | --- | --- |")
    for name in sys.argv[3:] or MAKERS:
        (home / "merged" / name).mkdir(parents=True, exist_ok=True)
        told: dict[str, str] = {}
        for one, two in PAIRS:
            try:
                told[f"{one}-{two}"] = in_five(home, name, one, two)
            except Exception as error:
                told[f"{one}-{two}"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        there = subprocess.run([four, __file__, str(home), name, "4"], check=True, capture_output=True, text=True).stdout
        old = json.loads(there.splitlines()[-1])
        for pair, said in told.items():
            print("|", name, "|", pair.replace("-", " + "), "|", said, "|", old.get(pair, ""), "|", flush=True)


if __name__ == "__main__":
    T.logging.set_verbosity_error()
    if sys.argv[-1] == "4":
        print(in_four(Path(sys.argv[1]), sys.argv[2]))
    else:
        main(Path(sys.argv[1]), sys.argv[2])
