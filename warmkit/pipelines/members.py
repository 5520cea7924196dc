"""Members of a pipeline: the runs that it averages, finished, and still what they were when they were."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.engine.contents import check_contents, contents, digest_of, record_of, recorded_contents
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.training.origins import check_same
from warmkit.training.run_identity import RunIdentity, run_identity

FREE = "controls"
"""The section of a policy's recipe that a pipeline may change: what is looked at, not learned."""


def is_finished(recipe: Any) -> bool:
    """Say whether a run of a pipeline is done. One that is must be of this recipe and data, of what it began with and, where
    its model is still there, as it left it.

    Raises:
        ChangedError: If its model, or what it began with, was changed since.
        FormatError: If a record of it is of another form.
        OutputError: If it is another run.
    """
    if hasattr(recipe, FREE):
        recipe = replace(recipe, **{FREE: []})
    return is_left(Path(recipe.output.path), lambda: run_identity(recipe))


def is_left(run: Path, identity: Callable[[], RunIdentity]) -> bool:
    """Say the same of a run of this identity, which is worked out where there is something to compare it with.

    Raises:
        Whatever `is_finished` does.
    """
    if not (run / "summary.json").exists():
        return False
    check_same(run, identity(), f"put back what was there, or delete {run}, and it is trained again", (FREE,))
    check_model(run / "model")
    return True


def check_model(model: Path) -> None:
    """Check that a member is what its run left; one that is gone is missed by who needs it.

    Raises:
        ChangedError: If it is not.
        FormatError: If the record of it is of another form.
    """
    if model.exists():
        check_contents(model)


def unrecorded(models: Mapping[str, str | Path]) -> list[str]:
    """Say which members an older version left, so that nobody knows whether they were changed."""
    places = {name: Path(path) for name, path in models.items()}
    runs = {name: place for name, place in places.items() if (place.parent / "summary.json").exists()}
    names = [name for name, place in runs.items() if not record_of(place).exists()]
    return [f"{', '.join(names)}: no record of what the run left, of an older warmkit; taken as it is"] if names else []


def digests_of_terms(terms: Iterable[RewardTerm]) -> dict[str, str]:
    """Return a digest of every reward model of some terms: their paths alone stay the same when they are trained anew."""
    each = [[term.model] if isinstance(term.model, str) else term.model or [] for term in terms]
    models = dict.fromkeys(itertools.chain(*each))
    return {model: digest_of(contents(model, recorded_contents(Path(model)))) for model in models}


def recorded_digests(models: Mapping[str, str | Path]) -> dict[str, str]:
    """Return a digest of what runs left, by name, as far as it was recorded."""
    found = {name: recorded_contents(Path(path)) for name, path in models.items()}
    return {name: digest_of(each) for name, each in found.items() if each is not None}
