"""Names of tensors in memory, as transformers has them: peft's follow those, which are not always those on disk."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from warmkit.errors import UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.layouts.orientation import parts

# Architectures that transformers names alike on disk and in memory, if they have no parts and no experts.
PLAIN = ("ForCausalLM", "LMHeadModel", "ForSequenceClassification", "ForTokenClassification", "ForMaskedLM")
EXPERTS = (".experts.", ".block_sparse_moe.", ".router.")
ADAPTABLE = ("Linear", "Conv1D", "Embedding")


def names_in_memory(base: Checkpoint) -> dict[str, str]:
    """Return the names of a checkpoint's tensors in memory, of those that a module holds as they are.

    Architectures with parts or experts are asked from transformers itself, from an instance without weights.

    Raises:
        UnsupportedError: If transformers, 5 or newer, is not installed, or does not know the architecture.
    """
    if _is_plain(base):
        return {name: name for name in base.entries}
    try:
        loading, conversions = (
            importlib.import_module(f"transformers.{name}") for name in ("core_model_loading", "conversion_mapping")
        )
        model = empty_model(base)
        transforms: list[Any] = conversions.get_model_conversion_mapping(model)
        renamings = [each for each in transforms if isinstance(each, loading.WeightRenaming)]
        converters = [each for each in transforms if isinstance(each, loading.WeightConverter)]
        known = model.state_dict()

        def renamed(name: str) -> str | None:
            new, fused = loading.rename_source_key(name, renamings, converters, model.base_model_prefix, known)
            if new not in known and name in known:
                return name
            return new if fused is None and new in known else None

        found = {name: renamed(name) for name in base.entries}
    except (ImportError, AttributeError, ValueError, TypeError, KeyError, OSError) as error:
        raise UnsupportedError(
            f"{base.source}: names of {_architecture(base) or 'this model'} on disk may not be those in memory, which adapters "
            f"have; transformers 5 tells them, and could not here ({' '.join(str(error).split())[:120]})"
        ) from None
    return {name: new for name, new in found.items() if new is not None and known[new].shape == base.entries[name].shape}


def check_modules(base: Checkpoint, chosen: Sequence[str], named: dict[str, str], targets: Sequence[str] | None) -> None:
    """Refuse matrices that peft can give no factors, and experts that are no matrices where nobody named others.

    Args:
        base: The model.
        chosen: Names of its matrices, on disk.
        named: What `names_in_memory` says.
        targets: Ends of module names that were asked for.

    Raises:
        UnsupportedError: Naming one, and what can be asked for.
    """
    fit = adaptable(base, named)
    strangers = [*([] if targets else stacks(base)), *(name for name in chosen if name not in fit)]
    if strangers:
        ends, others = (
            {name.removesuffix(".weight").rpartition(".")[2] for name in names} for names in (fit & {*chosen}, strangers)
        )
        advice = f"; name other modules with --targets {','.join(sorted(ends - others))}" if ends - others else ""
        raise no_module(base, next(filter(_is_of_experts, strangers), strangers[0]), advice)


def no_module(base: Checkpoint, name: str, advice: str = "") -> UnsupportedError:
    """Say that a tensor gets no factors."""
    return UnsupportedError(
        f"{base.source}: {name!r} is no module of its own in memory, where the experts of a layer are one tensor and routers "
        f"hold bare parameters, so peft cannot load factors for it{advice}"
    )


def stacks(base: Checkpoint) -> list[str]:
    """Return the tensors that hold the matrices of all experts of a layer."""
    return [name for name, entry in base.entries.items() if _is_of_experts(name) and len(entry.shape) == 3]


def _is_of_experts(name: str) -> bool:
    """Say whether a tensor is in the experts of a layer, not in what chooses among them."""
    return any(part in name for part in EXPERTS) and ".router." not in name


def adaptable(base: Checkpoint, names: dict[str, str]) -> set[str]:
    """Return the names, on disk, of matrices in modules that peft can give factors."""
    if _is_plain(base):
        return set(names)
    kinds = {name: type(module).__name__ for name, module in empty_model(base).named_modules()}
    return {name for name, new in names.items() if kinds.get(new.rpartition(".")[0], "").endswith(ADAPTABLE)}


def _architecture(base: Checkpoint) -> str:
    return (base.config.get("architectures") or [""])[0]


def _is_plain(base: Checkpoint) -> bool:
    if not base.config:
        return True
    experts = any(part in name for name in base.entries for part in EXPERTS)
    return not experts and not list(parts(base.config)) and (_architecture(base) or PLAIN[0]).endswith(PLAIN)


def empty_model(base: Checkpoint) -> Any:
    """Return the model without weights."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    config = transformers.AutoConfig.from_pretrained(base.path)
    with torch.device("meta"):
        return getattr(transformers, _architecture(base))(config)
