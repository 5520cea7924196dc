"""What is allowed and seldom meant is said, and refused with `strict`."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import warmkit
from tests.conftest import Family, Run, save, weights
from tests.unit.layouts import lora
from warmkit.errors import UsageError
from warmkit.verbs.ordering import doubts_of_order, in_order

Act = Callable[..., Any]


def cases(family: Family, copy: Path) -> dict[str, tuple[str, Act]]:
    """Return what is said of a merge, and the merge, which takes a destination and `strict`."""
    a, b, init = family.a, family.b, family.init

    def merge(models: list[Path], **how: Any) -> Act:
        return lambda out, **options: warmkit.merge(models, out, **how, **options)

    return {
        "lambda": (r"shares of the models \(-29, 30\) leave 0 to 1", merge([a, b], method="lerp", lambda_=30)),
        "varied": (r"shares of the models .*30.* leave 0 to 1", merge([a, b], method="lerp", lambda_=[0.5, 30])),
        "negative": (r"shares of the models \(-2\.5, 3\.5\)", merge([a, b], method="lerp", coefficients=[-0.5, 0.7])),
        "eta": (r"eta 30: 1 is the merge and 0 the init", merge([a, b], init=init, eta=30)),
        "backwards": (r"eta -1: ", merge([a, b], init=init, eta=[-1, 0.5])),
        "standing": (r"eta is 0: the result is the init", merge([a, b], init=init, eta=0)),
        "zeros": (
            r"all coefficients are 0: the result is the init",
            merge([a, b], init=init, method="task-arithmetic", coefficients=[0, 0]),
        ),
        "scale": (r"scale is 0: the result is the init", merge([a, b], init=init, method="ties", scale=0)),
        "twice": (r"a: the same model is there twice, so it counts twice", merge([a, b, a], method="lerp")),
        "init too": (r"sft is the init and a model too: it has no task vector", merge([a, init], init=init, method="ties")),
        "copy": (r"a and .*copy hold the same weights", merge([a, b, copy], method="lerp")),
        "moved": (r"still holds the weights of the init", merge([a, copy.with_name("still")], init=init, method="ties")),
        "one": (r"a is the only model: the result is a copy of it", lambda out, **options: warmkit.soup([a], out, **options)),
        "order": (
            r"step-1000 counts as older than .*step-200, a shell's order; --sort natural",
            lambda out, **options: warmkit.ema([copy.with_name(f"step-{n}") for n in (1000, 200)], out, **options),
        ),
    }


@pytest.fixture
def doubtful(family: Family, tmp_path: Path) -> dict[str, tuple[str, Act]]:
    shutil.copytree(family.a, tmp_path / "copy")
    shutil.copytree(family.init, tmp_path / "still")
    for number in (1000, 200):
        save(tmp_path / f"step-{number}", weights(number))
    return cases(family, tmp_path / "copy")


def test_every_doubt_is_a_note_and_an_error_with_strict(doubtful: dict[str, tuple[str, Act]], tmp_path: Path) -> None:
    for number, (said, act) in enumerate(doubtful.values()):
        out = tmp_path / f"out{number}"
        with pytest.raises(UsageError, match=said):
            act(out, strict=True)
        assert not out.exists()
        assert not list(tmp_path.glob(".out*"))
        notes = act(out).notes
        assert len([note for note in notes if re.search(said, note)]) == 1, notes
        warmkit.verify(out)


def test_usual_merges_say_nothing(family: Family, tmp_path: Path) -> None:
    merge = lambda name, **how: warmkit.merge(family.models, tmp_path / f"out-{name}", strict=True, **how)  # noqa: E731
    assert not merge("a", init=family.init, eta=[0, 0.3, 1, 1.2]).notes
    assert not merge("b", init=family.init, method="ties", density=1.0).notes
    assert not merge("c", method="lerp", coefficients=[3, 1, 1]).notes
    assert not merge("d", init=family.init, method="task-arithmetic", coefficients=[1, -0.5, 2]).notes
    assert not warmkit.liti(family.a, tmp_path / "out-e", init=family.init, eta=0.3, strict=True).notes
    assert not warmkit.ema(family.models, tmp_path / "out-f", strict=True).notes


def test_an_adapter_as_it_is_before_training_changes_nothing_and_says_so(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = lora.base(tmp_path / "base")
    trained = lora.adapter(tmp_path / "trained", base, r=2, target_modules=["q_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fresh = peft.get_peft_model(lora.loaded(base), peft.LoraConfig(r=2, target_modules=["q_proj"]))
        fresh.save_pretrained(tmp_path / "fresh")
    models = [f"{base}+{trained}", f"{base}+{tmp_path / 'fresh'}"]
    notes = warmkit.merge(models, tmp_path / "out", method="lerp").notes
    assert [note for note in notes if "changes nothing" in note] == [
        f"{models[1]}: the adapter changes nothing (its factors B are 0)"
    ]
    assert not [note for note in notes if "same weights" in note]


def test_ema_weighs_checkpoints_about_alike_by_default(family: Family, run: Run) -> None:
    done = run("ema", *family.models, "-o", "out")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert "mu = 0.5" in done.stdout
    assert [words[words.index(str(each)) + 1] for each in family.models] == ["0.25", "0.25", "0.5"]


def test_names_are_ordered_by_their_numbers() -> None:
    shell = ["run/step-1000", "run/step-200", "run/step-30"]
    assert in_order(shell, "natural") == shell[::-1]
    assert in_order(shell, "given") == shell
    assert in_order(["b2/x10", "b10/x1", "b2/x9"], "natural") == ["b2/x9", "b2/x10", "b10/x1"]
    assert "run/step-1000 counts as older than run/step-200" in doubts_of_order(shell)[0]
    assert not doubts_of_order(shell[::-1])
    assert not doubts_of_order(["c", "a", "b"])  # an order of one's own
    with pytest.raises(UsageError, match="did you mean 'natural'"):
        in_order(shell, "naturel")
