"""Doubts about a merge: what is allowed and seldom meant, as the same model twice, or a lambda of 30.

Each is a line; `strict` makes errors of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from warmkit.engine.digests import Digests
from warmkit.engine.spec import MergeSpec
from warmkit.errors import UsageError, listed
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtypes import DTYPES
from warmkit.formats.held import read_whole
from warmkit.layouts.adapted import AdaptedTensor, Changed, Factors, ReplacedTensor
from warmkit.sources.files import Files

FARTHEST = 2.0  # of eta: sweeps go a little beyond the model, hardly ever twice as far


def doubts_before(spec: MergeSpec, init: Checkpoint | None, models: Sequence[Checkpoint]) -> list[str]:
    """Return what is doubtful of a merge before its weights are read."""
    return [*_numbers(spec), *_inputs(spec, init, models), *_idle_adapters([*([init] if init else []), *models])]


def doubts_after(rows: Sequence[Checkpoint], has_init: bool, digests: Mapping[str, Digests], known: Iterable[str]) -> list[str]:
    """Return which inputs turned out to hold the same weights, unless that is known.

    Args:
        rows: The inputs, in the order of the digests.
        has_init: Whether the first is the initialisation.
        digests: Of every tensor.
        known: Doubts that were there before.
    """
    # of an adapter, the base is what was read
    dense = [place for place, each in enumerate(rows) if not any(part.adapters for part in each.inputs)]
    said: list[str] = []
    for one, two in combinations(dense, 2):
        if digests and all(each.inputs[one] == each.inputs[two] for each in digests.values()):
            first, second = rows[one].source, rows[two].source
            line = _moved_nothing(second) if has_init and one == 0 else f"{first} and {second} hold the same weights"
            said += [] if any(second in each for each in known) else [line]
    return said


def refuse_doubts(doubts: Sequence[str], strict: bool) -> None:
    """Refuse doubts where they are errors.

    Raises:
        UsageError: Listing them.
    """
    if strict and doubts:
        raise UsageError(f"--strict takes doubts for errors:\n{listed(list(doubts))}")


def _moved_nothing(model: str) -> str:
    return f"{model} holds the weights of the init: it has no task vector"


def _numbers(spec: MergeSpec) -> list[str]:
    said: list[str] = []
    if spec.method.mix == "shares" and not spec.averages:
        settings = [each for mix in spec.variation.stretches for each in mix.coefficients or ()] if spec.variation else []
        varied = [value for setting in settings for rule in setting for value in rule.values]
        shares = varied if spec.variation else spec.shares.tolist()
        if any(not 0 <= share <= 1 for share in shares):
            shown = ", ".join(f"{share:.6g}" for share in shares)
            said.append(f"the shares of the models ({shown}) leave 0 to 1: the result lies beyond the models, not between them")
    elif not spec.variation and not spec.shares.any():
        said.append("all coefficients are 0: the result is the init")
    if spec.method.edits and spec.scale == 0:
        said.append("scale is 0: the result is the init")
    far = [f"{eta:g}" for eta in spec.etas if not 0 <= eta <= FARTHEST]
    if far:
        said.append(f"eta {', '.join(far)}: 1 is the merge and 0 the init; this is far beyond them")
    if spec.etas == (0.0,):
        said.append("eta is 0: the result is the init")
    return said


def _inputs(spec: MergeSpec, init: Checkpoint | None, models: Sequence[Checkpoint]) -> list[str]:
    said: list[str] = []
    whole = models[0].inputs == (models[0],)  # and no stack of layers
    if len(models) == 1 and whole and not spec.reads_init and not spec.from_zero and spec.method.mix != "scales":
        said.append(f"{models[0].source} is the only model: the result is a copy of it")
    marks = [each.fingerprint() for each in models]
    for place, each in enumerate(models):
        if init is not None and spec.uses_init and marks[place] == init.fingerprint():
            said.append(f"{each.source} is the init and a model too: it has no task vector")
        elif marks[place] in marks[:place]:
            first = models[marks.index(marks[place])].source
            same = each.source if first == each.source else f"{first} and {each.source}"
            said.append(f"{same}: the same model is there twice, so it counts twice")
    return said


def _idle_adapters(checkpoints: Iterable[Checkpoint]) -> list[str]:
    """Find adapters as they are before training: with B zero they change nothing."""
    return [f"{each.source}: the adapter changes nothing (its factors B are 0)" for each in checkpoints if _idle(each)]


def _idle(checkpoint: Checkpoint) -> bool:
    changed = [entry for entry in checkpoint.entries.values() if isinstance(entry, Changed | ReplacedTensor)]
    factors = [each.factors for each in changed if isinstance(each, AdaptedTensor) and isinstance(each.factors, Factors)]
    if not factors or len(factors) < len(changed) or any(each.magnitude is not None for each in factors):
        return False
    with Files(checkpoint.identities) as files:
        return not any(read_whole(files, each.b, DTYPES["F32"]).any() for each in factors)
