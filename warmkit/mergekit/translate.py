"""Translation of a recipe of mergekit into the recipe of warmkit that does the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from warmkit.layouts.layer_settings import Rule, Setting, is_constant, write_setting
from warmkit.mergekit.method_table import KNOWN
from warmkit.mergekit.schema import MergekitRecipe
from warmkit.mergekit.scopes import Input, Scopes, Section
from warmkit.mergekit.sections import sections
from warmkit.mergekit.vocabulary import chat_template, read_words
from warmkit.merging.methods import METHODS
from warmkit.recipes.recipe import MergeRecipe, MergeSection, OutputSection, Recipe, SliceSection, SourceSection, read_recipe


@dataclass(frozen=True)
class Mixed:
    """What a method makes of one section.

    Attributes:
        method: Of warmkit.
        models: In the order of the coefficients.
        init: The initialisation, as `merge.init`; `zero` for weights themselves.
        base: Where its layers are.
        lambda_: Share of the second of two models, instead of coefficients.
        coefficients: One setting per model; empty where the method weighs all alike.
        eta: Of LITI.
        granularity: What shares an angle.
        antiparallel: What to do where vectors oppose each other.
        own: Parameters of a method that edits task vectors, as a recipe writes them.
    """

    method: str
    models: tuple[Input, ...]
    init: str | None = None
    base: Input | None = None
    lambda_: Setting | None = None
    coefficients: tuple[Setting, ...] = ()
    eta: Setting = (Rule((1.0,)),)
    granularity: str | None = None
    antiparallel: str | None = None
    own: Mapping[str, Any] = field(default_factory=lambda: {})


@dataclass(frozen=True)
class Translation:
    """A recipe of mergekit in warmkit's terms.

    Attributes:
        recipe: The recipe, with the file and lines of the original.
        notes: Where the result differs on purpose, and what has no effect.
    """

    recipe: Recipe[MergeRecipe]
    notes: tuple[str, ...]


def read_mergekit(path: Path) -> Translation:
    """Read a recipe of mergekit and translate it.

    Raises:
        RecipeError: If it is no recipe, or asks for what warmkit lacks; the message names it and its line.
    """
    return translated(read_recipe(path, MergekitRecipe), {})


def translated(read: Recipe[MergekitRecipe], places: Mapping[str, str]) -> Translation:
    """Translate a recipe of mergekit.

    Args:
        read: The recipe.
        places: Where the models are that it calls by the names of other documents.

    Raises:
        RecipeError: If it asks for what warmkit lacks.
    """
    content, path = read.content, read.path
    scopes = Scopes(read, KNOWN[content.merge_method], places)
    if content.models is None and content.slices is None:
        raise scopes.error("merge_method", "missing key 'models' or 'slices'")
    mixed = [_METHODS[content.merge_method](scopes, section) for section in sections(scopes)]
    donor = mixed[0].init if mixed[0].init not in (None, "zero") else mixed[0].models[0].model
    words = read_words(scopes, donor)
    output = OutputSection(dtype=_dtype(scopes), tokenizer=words.tokenizer, chat_template=chat_template(scopes))
    merge = replace(_whole(mixed[0]), **words.keys()) if content.slices is None else _sliced(mixed)
    return Translation(Recipe(MergeRecipe(merge, output), path, read.lines), tuple(scopes.notes))


# ---- methods --------------------------------------------------------------------------------------------------------


def _weights(scopes: Scopes, inputs: Sequence[Input], default: float | None = None) -> tuple[Setting, ...]:
    return tuple(scopes.setting(scopes.known.weighs, each.scopes, default) for each in inputs)


def _linear(scopes: Scopes, section: Section) -> Mixed:
    weights = _weights(scopes, section.inputs)
    if scopes.flag("normalize", section.scopes, default=True):
        return Mixed("lerp", section.inputs, coefficients=weights)
    return Mixed("task-arithmetic", section.inputs, "zero", coefficients=weights)


def _passthrough(scopes: Scopes, section: Section) -> Mixed:
    if len(section.inputs) != 1:
        raise scopes.error(section.key, f"passthrough copies one model (in every slice), found {len(section.inputs)}")
    return Mixed("task-arithmetic", section.inputs, "zero", coefficients=_weights(scopes, section.inputs, 1.0))


def _slerp(scopes: Scopes, section: Section) -> Mixed:
    assert section.base is not None
    models = (section.base, *section.inputs)
    _expect(scopes, section, 1, "slerp takes two models, base_model one of them")
    t = scopes.setting("t", section.scopes, None)
    if any(not 0 <= value <= 1 for rule in t for value in rule.values):
        raise scopes.error("parameters.t", "t must be between 0 and 1: warmkit does not go past the end of an arc")
    scopes.note("slerp: the arc is followed at every angle, also where mergekit averages straight (|cos| > 0.9995)")
    return Mixed("slerp-weights", models, lambda_=t, granularity="tensor", antiparallel="lerp")


def _nuslerp(scopes: Scopes, section: Section) -> Mixed:
    _expect(scopes, section, 2, "nuslerp takes two models beside base_model")
    if not scopes.flag("nuslerp_flatten", section.scopes, default=True):
        lacks = "nuslerp_flatten false (an arc for every row or column) is not in warmkit"
        raise scopes.error("parameters.nuslerp_flatten", f"{lacks}; without it a tensor has one arc, which warmkit has too")
    weights = _weights(scopes, section.inputs)
    if all(map(is_constant, weights)) and abs(sum(each[0].values[0] for each in weights)) < 1e-6:
        weights = ((Rule((1.0,)),),) * 2  # as mergekit: halfway
    mixed = Mixed("slerp-weights", section.inputs, coefficients=weights, granularity="tensor", antiparallel="lerp")
    return mixed if section.base is None else replace(mixed, method="slerp", init=section.base.model, base=section.base)


def _task_arithmetic(scopes: Scopes, section: Section) -> Mixed:
    assert section.base is not None
    if not section.inputs:
        raise scopes.error(section.key, "task_arithmetic needs a model beside base_model")
    for name in ("density", "rescale", "int8_mask"):
        if any(name in scope.content for each in section.inputs for scope in each.scopes):
            scopes.note(f"{name}: has no effect on task_arithmetic, in mergekit either")
    method = "lerp" if scopes.flag("normalize", section.scopes, default=False) else "task-arithmetic"
    weights, eta = _weights(scopes, section.inputs), scopes.setting("lambda", section.scopes, 1.0)
    return Mixed(method, section.inputs, section.base.model, section.base, coefficients=weights, eta=eta)


@dataclass(frozen=True)
class _Edited:
    """A method that edits task vectors: its name here, and whether mergekit rescales."""

    method: str
    rescale: bool

    def __call__(self, scopes: Scopes, section: Section) -> Mixed:
        name, base = scopes.known.name, _base(scopes, section)
        if scopes.flag("rescale", section.scopes, default=self.rescale) is not self.rescale:
            raise scopes.error("parameters.rescale", f"rescale {str(not self.rescale).lower()} is not in warmkit's {name}")
        ours = {each.name: each for each in METHODS[self.method].parameters}
        normalize = scopes.flag("normalize", section.scopes, default="normalize" in ours and bool(ours["normalize"].default))
        if normalize and "normalize" not in ours:
            raise scopes.error("parameters.normalize", f"normalize true is not in warmkit's {name}; divide the weights")
        if self.rescale:
            scopes.note(f"{name}: random masks are warmkit's own, seeded by tensor; rescaled by 1/density, not by norms")
        own: dict[str, Any] = {"normalize": normalize} if "normalize" in ours else {}
        for what in (name for name, each in ours.items() if each.per_model):
            default = 1.0 if what == "density" else float(ours[what].default)  # mergekit's are ours, but for density
            own[what] = [write_setting(scopes.setting(what, each.scopes, default)) for each in section.inputs]
        weights, eta = _weights(scopes, section.inputs), scopes.setting("lambda", section.scopes, 1.0)
        return Mixed(self.method, section.inputs, base.model, base, coefficients=weights, eta=eta, own=own)


@dataclass(frozen=True)
class _Weighing:
    """A method that edits task vectors and weighs the models itself, with numbers for all tensors: their names and defaults."""

    method: str
    defaults: Mapping[str, float]
    granularity: str | None = None

    def __call__(self, scopes: Scopes, section: Section) -> Mixed:
        base, own = _base(scopes, section), dict[str, Any]()
        for name, default in self.defaults.items():
            setting = scopes.setting(name, section.scopes, default)
            if not is_constant(setting):
                raise scopes.error(f"parameters.{name}", f"{name} must be one number for all tensors")
            own[name] = setting[0].values[0]
        return Mixed(self.method, section.inputs, base.model, base, granularity=self.granularity, own=own)


def _base(scopes: Scopes, section: Section) -> Input:
    """Return the base model of a method that edits task vectors."""
    assert section.base is not None
    if not section.inputs:
        raise scopes.error(section.key, f"{scopes.known.name} needs a model beside base_model")
    if section.base.layers is not None:
        raise scopes.error(section.key, f"{scopes.known.name} of slices is not in warmkit; give models")
    if any("int8_mask" in scope.content for scope in section.scopes):
        scopes.note("int8_mask: has no effect; warmkit needs no such memory")
    return section.base


def _karcher(scopes: Scopes, section: Section) -> Mixed:
    for name in ("max_iter", "tol"):
        if any(name in scope.content for scope in section.scopes):
            scopes.note(f"{name}: has no effect; warmkit's mean is found to twelve digits")
    return Mixed("karcher", section.inputs, "zero", granularity="tensor")


def _multislerp(scopes: Scopes, section: Section) -> Mixed:
    if any("eps" in scope.content for scope in section.scopes):
        scopes.note("eps: has no effect; only a direction of zero is left out")
    weights, base = _weights(scopes, section.inputs), section.base
    eta = Rule((1.0,))
    if not scopes.flag("normalize_weights", section.scopes, default=True) and len(section.inputs) > 1:
        if base is None or not all(map(is_constant, weights)):
            raise scopes.error(
                "parameters.normalize_weights", "normalize_weights false needs a base_model and weights that are numbers"
            )
        eta = Rule((sum(each[0].values[0] for each in weights),))
    antiparallel = "lerp" if len(section.inputs) == 2 else None  # as mergekit, which refuses more that cancel
    init = "zero" if base is None else base.model
    return Mixed("multislerp", section.inputs, init, base, None, weights, (eta,), "tensor", antiparallel)


def _nearswap(scopes: Scopes, section: Section) -> Mixed:
    base = _base(scopes, section)
    _expect(scopes, section, 1, "nearswap takes one model beside base_model")
    limit = [write_setting(scopes.setting("t", section.scopes, None))]
    return Mixed("nearswap", section.inputs, base.model, base, own={"limit": limit})


def _arcee_fusion(scopes: Scopes, section: Section) -> Mixed:
    base = _base(scopes, section)
    _expect(scopes, section, 1, "arcee_fusion takes one model beside base_model")
    scopes.note("arcee_fusion: quartiles are those of all elements; mergekit draws a million of larger tensors, unseeded")
    return Mixed("arcee-fusion", section.inputs, base.model, base)


def _model_stock(scopes: Scopes, section: Section) -> Mixed:
    assert section.base is not None
    if len(section.inputs) < 2:
        raise scopes.error(section.key, f"model_stock needs two models beside base_model, found {len(section.inputs)}")
    if scopes.flag("filter_wise", section.scopes, default=False):
        raise scopes.error("parameters.filter_wise", "filter_wise (an angle for every row) is not in warmkit")
    scopes.note("model_stock: a mean cosine below zero gives the base, where mergekit steps away from the models")
    return Mixed("model-stock", section.inputs, section.base.model, section.base, granularity="tensor")


_METHODS: dict[str, Callable[[Scopes, Section], Mixed]] = {
    "linear": _linear,
    "passthrough": _passthrough,
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "task_arithmetic": _task_arithmetic,
    "ties": _Edited("ties", rescale=False),
    "dare_linear": _Edited("dare-linear", rescale=True),
    "dare_ties": _Edited("dare-ties", rescale=True),
    "breadcrumbs": _Edited("breadcrumbs", rescale=False),
    "breadcrumbs_ties": _Edited("breadcrumbs-ties", rescale=False),
    "della": _Edited("della", rescale=True),
    "della_linear": _Edited("della-linear", rescale=True),
    "sce": _Weighing("sce", {"select_topk": 1.0}),
    "ram": _Weighing("ram", {"epsilon": 1e-5}),
    "ramplus_tl": _Weighing("ram-plus", {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5}, "tensor"),
    "karcher": _karcher,
    "multislerp": _multislerp,
    "nearswap": _nearswap,
    "arcee_fusion": _arcee_fusion,
    "model_stock": _model_stock,
}


def _expect(scopes: Scopes, section: Section, count: int, message: str) -> None:
    if len(section.inputs) != count:
        raise scopes.error(section.key, f"{message}, found {len(section.inputs) + (section.base is not None)} in all")


# ---- the recipe -----------------------------------------------------------------------------------------------------


def _numbers(mixed: Mixed) -> dict[str, Any]:
    """Return `lambda`, `coefficients` and `eta` as a recipe writes them."""
    eta: Any = write_setting(mixed.eta)
    if isinstance(eta, list) and len(mixed.eta) == 1 and mixed.eta[0].pattern is None:
        eta = [{"value": eta}]  # a plain list is a sweep
    return {
        "lambda_": None if mixed.lambda_ is None else write_setting(mixed.lambda_),
        "coefficients": [write_setting(each) for each in mixed.coefficients] or None,
        "eta": None if eta == 1 else eta,
    }


def _common(mixed: Mixed) -> dict[str, Any]:
    common = {"init": mixed.init, "method": mixed.method}
    return {**common, "granularity": mixed.granularity, "antiparallel": mixed.antiparallel, **mixed.own}


def _whole(mixed: Mixed) -> MergeSection:
    return MergeSection(models=[each.model for each in mixed.models], **_common(mixed), **_numbers(mixed))


def _sliced(mixed: Sequence[Mixed]) -> MergeSection:
    """Return slices, with the numbers that all share said once."""
    numbers = [_numbers(each) for each in mixed]
    alike = all(each == numbers[0] for each in numbers)
    slices = [
        SliceSection(
            sources=[SourceSection(source.model, list(source.layers or ())) for source in each.models],
            init=None if each.base is None else list(each.base.layers or ()),
            **({} if alike else own),
        )
        for each, own in zip(mixed, numbers)
    ]
    return MergeSection(slices=slices, **_common(mixed[0]), **(numbers[0] if alike else {}))


def _dtype(scopes: Scopes) -> str | None:
    recipe = scopes.recipe.content
    if recipe.dtype is not None:
        scopes.note(f"dtype: {recipe.dtype} is the type of the result; sums run in float32 or wider, from inputs as they are")
    return recipe.out_dtype or recipe.dtype
