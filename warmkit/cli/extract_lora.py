"""`warmkit extract-lora`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmkit.cli.command import argument, command, option, required
from warmkit.cli.completions import among
from warmkit.cli.console import Console, table
from warmkit.cli.shared_options import OutputPath
from warmkit.common.units import number

if TYPE_CHECKING:
    from warmkit.verbs.extraction import Extraction


@dataclass(eq=False, repr=False)
class Factors:
    """What the adapter holds."""

    rank: int | None = option(None, "Rank of the adapter in every module.", show_default="16")
    energy: float | None = option(None, "Instead, the share of each module's squared norm to keep: 0.99.")
    targets: str | None = option(None, "Ends of module names: q_proj,v_proj.", show_default="every matrix in a layer")
    experts: bool = option(False, "Factors for experts and routers too, as peft's target_parameters.")
    save_rest: bool = option(False, "Save changed norms, biases, embeddings and heads whole.")
    dtype: str = option(
        "float32",
        "Number format of the factors: float32, bfloat16 or float16.",
        autocompletion=among("float32", "bfloat16", "float16"),
    )
    force: bool = option(False, "Replace an adapter at OUT, in one step at the end.")


@command()
def extract_lora(
    console: Console,
    *,
    model: str = argument("MODEL", "Directory, .safetensors file or Hub repository."),
    output: OutputPath,
    init: str = required("The dense base that the adapter goes on.", show_default=False),
    factors: Factors,
) -> None:
    """Turn a model, a merge for instance, into a LoRA adapter on its base, and report what is lost.

    Examples:

    - `warmkit extract-lora --init BASE MERGED --rank 16 -o ADAPTER`
    - `warmkit extract-lora --init BASE MERGED --energy 0.99 --save-rest -o ADAPTER`
    """
    from warmkit.verbs.extract import extract_lora as extract

    how: dict[str, Any] = {**vars(factors), "targets": factors.targets.split(",") if factors.targets else None}
    with console.progress("extracting") as advance:
        made = extract(model, output, init=init, **how, advance=advance)
    console.note(*made.notes)
    console.result(made.as_document(), *_said(made))
    if console.verbose and not console.json:
        console.result(None, _modules(made))


def _said(made: Extraction) -> list[str]:
    """Say what share of the task vector's squared norm is lost, and where."""
    missed = sum(each.squared_loss for each in made.modules)
    unsaved = [each for each in made.rest if not each.saved]
    rest = sum(each.squared_norm for each in unsaved)
    parts = [(missed, "past the rank"), (rest, f"in {len(unsaved)} tensors that are no factors")]
    lost = [f"{loss / made.squared_norm:.2g} {where}" for loss, where in parts if loss and made.squared_norm]
    names = ", ".join(each.name for each in sorted(unsaved, key=lambda each: -each.squared_norm)[:3])
    advice = f" ({names}, ...; --save-rest keeps what it can)" if unsaved else ""
    where = f": {', '.join(lost)}{advice}" if lost else ""
    said = f"{number(made.parameters)} parameters; {made.lost:.2g} of the task vector's squared norm is lost{where}"
    return [said, str(made.path)]


def _modules(made: Extraction) -> Any:
    rows = [
        [
            each.name,
            str(each.rank),
            f"{each.squared_norm**0.5:.3g}",
            _share(each.squared_loss, each.squared_norm),
            _how(each.exact),
        ]
        for each in made.modules
    ]
    rows += [
        [each.name, "saved whole" if each.saved else "", f"{each.squared_norm**0.5:.3g}", "0" if each.saved else "1", ""]
        for each in made.rest
    ]
    return table(None, ["module", "rank", "norm", "lost", "decomposition"], rows)


def _share(loss: float, norm: float) -> str:
    return f"{loss / norm:.3g}" if norm else "0"


def _how(exact: bool) -> str:
    return "exact" if exact else "randomised"
