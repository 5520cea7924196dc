"""WARM of reward models that are trained already, whoever trained them: ranked, averaged two by two, the best averaged.

What is left in the output directory:

- `recipe.yaml`, every key resolved
- `evaluation/*.npz`, scores of every model and average
- `model`, the final model
- `summary.json` and two pictures
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from warmkit.errors import UsageError
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.ranking_pairs import VALIDATION, with_ranking
from warmkit.evaluation.side_by_side import open_contest
from warmkit.pipelines.warm import WarmResult, average_chosen
from warmkit.recipes.recipe import recipe_text
from warmkit.training.distributed import refuse_group
from warmkit.training.origins import check_same
from warmkit.training.recipe_sections import MembersRecipe
from warmkit.training.run import RunDirectory
from warmkit.training.run_identity import RunIdentity


def average_members(
    recipe: MembersRecipe,
    *,
    force: bool = False,
    stage: Callable[[str], None] = lambda name: None,
    look: Callable[[Contest], None] = lambda contest: None,
) -> WarmResult:
    """Average the best of a pool of finished reward models, chosen on half of the validation pairs, measured on the others.

    Args:
        recipe: Names the models and the data.
        force: Delete a pipeline of other models that lies there.
        stage: Called with the name of every part of the work as it begins.
        look: Called with the models and the data before anything is scored.

    Raises:
        ChangedError: If a model is no longer what it was when the pipeline began.
        CheckpointError: If a model cannot be opened.
        DataError: If a row of the data cannot be used.
        MismatchError: If architectures, shapes or vocabularies differ, or two models read a text otherwise.
        UnsupportedError: If one is no reward model.
        UsageError: If a model is given twice.
    """
    refuse_group("warm")
    stage("reading")
    contest = open_members(recipe)
    out, identity = Path(recipe.output.path), _identity(recipe)
    directory = RunDirectory(out, recipe_text(recipe), force, identity)
    contest.cache = out / "evaluation"
    look(contest)
    stage("averaging")
    differ = {name: {"model": str(path)} for name, path in contest.members.items()}
    result = average_chosen(contest, recipe.warm, differ, out, lambda: check_same(out, identity), directory.notes)
    del directory  # its lock
    return result


def open_members(recipe: MembersRecipe) -> Contest:
    """Open the models and the data, half of the validation pairs as `ranking`; what does not fit is refused.

    Raises:
        Whatever `average_members` does.
    """
    if recipe.output.trackers:
        raise UsageError("output.trackers: follow a training, and warm.members are trained already; leave them out")
    data, models = recipe.data, recipe.warm.members
    sources = {VALIDATION: data.validation, **({} if data.ood is None else {"ood": data.ood})}
    contest = open_contest(models, sources, max_length=recipe.model.max_length, chat=data.chat, equal_pairs=data.equal_pairs)
    contest.data = with_ranking(contest.data)
    return contest


def _identity(recipe: MembersRecipe) -> RunIdentity:
    """Return what makes two pipelines the same: the models. How they are chosen, and on which data, may change."""
    models = recipe.warm.members
    return RunIdentity(f"members: {sorted(models)}\n", {model: ["warm.members"] for model in models})
