"""Write `warmkit/layouts/name_rules.json`: how transformers 5 turns names on disk into names in memory, and back.

    python tests/data/layouts/make_table.py warmkit/layouts/name_rules.json

One entry for every architecture whose names differ; architectures with the same rules share them. Left out, and printed, is
what our words cannot say: numbers that are computed, and rules that take names in memory for names on disk.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import conversion_mapping as conversions
from transformers.core_model_loading import PrefixChange, WeightConverter, WeightRenaming, apply_renamings
from transformers.models.auto import modeling_auto as auto

LISTS = (
    auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)
PLAIN = (WeightRenaming, PrefixChange)
ONE_PART = ("ForCausalLM", "ForSequenceClassification", "ForTokenClassification")
KNOWN = (
    ["MergeModulelist 0", "Concatenate 1"],
    ["MergeModulelist 0"],
    ["Concatenate 0"],
    ["Concatenate 1"],
    ["Chunk 0"],
    ["Transpose 1 2 True"],
)


def architectures() -> dict[str, str]:
    """Return the classes of models, with the type of their config."""
    found: dict[str, str] = {}
    for each in LISTS:
        for kind, names in each.items():
            for name in [names] if isinstance(names, str) else names:
                found.setdefault(name, kind)
    return found


def empty(name: str, kind: str) -> Any:
    """Return a model of the default config, with two experts and without weights."""
    config = transformers.models.auto.configuration_auto.CONFIG_MAPPING[kind]()
    for part in (config, *(value for value in vars(config).values() if hasattr(value, "model_type"))):
        for key in {"num_local_experts", "num_experts", "n_routed_experts"} & vars(part).keys():
            setattr(part, key, 2)
    with torch.device("meta"):
        return getattr(transformers, name)(config)


def transforms(name: str, kind: str) -> list[Any]:
    """Return transformers' own rules of a class; of one that has no default config and no parts, those of its type."""
    try:
        model = empty(name, kind)
        found = conversions.get_model_conversion_mapping(model, add_legacy=False)
    except Exception:
        if not name.endswith(ONE_PART):
            raise
        of = conversions.get_checkpoint_conversion_mapping
        return of(name) or of(kind) or []
    renamings = [each for each in found if not isinstance(each, WeightConverter)]
    if changed := [key for key in model.state_dict() if apply_renamings(key, renamings) != key]:
        raise ValueError(f"{changed[0]} is taken for a name on disk")
    return found


def rules_of(found: list[Any]) -> dict[str, Any]:
    """Return rules in our words.

    Raises:
        ValueError: Naming what they cannot say.
    """
    for each in found:
        if type(each) not in (*PLAIN, WeightConverter):
            raise ValueError(type(each).__name__)
    renamings = [each for each in found if not isinstance(each, WeightConverter)]
    kept = [each.reverse_transform() for each in renamings[::-1] if not isinstance(each, PrefixChange)]
    return {
        "load": [renaming(each) for each in renamings],
        "join": [converter(each) for each in found if isinstance(each, WeightConverter)],
        "save": [renaming(each) for each in kept],
    }


def renaming(each: Any) -> list[Any]:
    """Return what to search for, what stands there instead, and the module that it is about."""
    if len(each.source_patterns) > 1:
        raise ValueError("several patterns")
    return [each.compiled_sources.pattern.removeprefix("(?P<g0>").removesuffix(")"), each.target_patterns[0], *scope(each)]


def converter(each: Any) -> list[Any]:
    """Return names on disk, names in memory, what is done, and the module that it is about."""
    steps = [" ".join([type(step).__name__, *numbers(step)]) for step in each.operations]
    if steps not in KNOWN or any(getattr(step, "num_shards_attribute", None) for step in each.operations):
        raise ValueError(", ".join(steps))
    return [each.source_patterns, each.target_patterns, steps, *scope(each)]


def numbers(step: Any) -> list[str]:
    return [str(getattr(step, name)) for name in ("dim", "dim0", "dim1", "check_dims") if hasattr(step, name)]


def scope(each: Any) -> list[str]:
    return [] if each.scope_prefix is None else [each.scope_prefix, each.base_model_prefix]


def table() -> dict[str, Any]:
    """Return the whole table."""
    rules: list[dict[str, Any]] = []
    of: dict[str, int] = {}
    types: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, kind in architectures().items():
        try:
            found = rules_of(transforms(name, kind))
        except Exception as error:
            left[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            continue
        if found["load"] or found["join"]:
            if found not in rules:
                rules.append(found)
            of[name] = rules.index(found)
            types.setdefault(kind, name)
    for name, why in left.items():
        print("left out:", name, why, file=sys.stderr)
    return {"transformers": transformers.__version__, "types": types, "architectures": of, "rules": rules}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    Path(sys.argv[1]).write_text(json.dumps(table(), indent=None, separators=(",", ":")) + "\n")
