"""LoRA adapters as checkpoints: the dense weights that base and adapter stand for together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from warmkit.common.addresses import shown
from warmkit.errors import CheckpointError, FormatError, MismatchError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.held import Recent
from warmkit.formats.quantised import is_dequantised
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.layouts.adapted import AdaptedTensor, Edit, Edited, Factors, Product, ReplacedTensor
from warmkit.layouts.adapter_config import CONFIG, AdapterConfig, read_config
from warmkit.layouts.adapter_experts import Parameter, adapted_experts, is_behind, kind_of, router_place, sorted_modules
from warmkit.layouts.adapter_file import Adapter, Module, read_adapter
from warmkit.layouts.adapter_heads import SCORE, lost_head, padded_as_trained, with_own_head
from warmkit.layouts.adapter_kinds import changes, replaced_rows
from warmkit.layouts.adapter_names import alike, naming
from warmkit.layouts.adapter_rules import Rule
from warmkit.layouts.compatibility import EMBEDDINGS, HEAD, embedding_of, same_bytes
from warmkit.layouts.config_defaults import ties
from warmkit.layouts.orientation import has_conv1d, is_conv1d
from warmkit.merging.low_rank import LowRank
from warmkit.sources.file_identity import Identity, identities_at
from warmkit.sources.hub import resolve

_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM")


@dataclass(frozen=True)
class FoundAdapter:
    """An adapter's directory.

    Attributes:
        source: What the user calls it, without secrets.
        directory: Where it lies.
        identities: Of its files, as they were before anything was read.
        config: Of the adapter.
    """

    source: str
    directory: Path
    identities: Mapping[Path, Identity]
    config: AdapterConfig


def find_adapter(source: str) -> FoundAdapter:
    """Find an adapter that was given after a `+`.

    Raises:
        CheckpointError: If there is none.
    """
    directory, source = resolve(source), shown(source)
    if not directory.is_dir() or not (directory / CONFIG).is_file():
        raise CheckpointError(f"{source}: expected an adapter's directory with {CONFIG} after the +")
    return FoundAdapter(source, directory, identities_at(directory), read_config(directory))


def on_base(source: str, base: Checkpoint, found: FoundAdapter, note: str | None) -> Checkpoint:
    """Return the dense weights that a base and an adapter stand for.

    Args:
        source: What the user calls the two.
        base: The base, opened.
        found: The adapter.
        note: What the user should know of the pair.

    Raises:
        CheckpointError: If the adapter's file is malformed, of a kind that is refused, or does not fit.
    """
    adapter = read_adapter(found.directory, found.config)
    lost = lost_head(base, adapter.whole, found.config)
    coded = [f"{found.source}: its base is quantised; the result is the dense weights of both"] if is_dequantised(base) else []
    base = padded_as_trained(with_own_head(base, adapter.whole, found.config), found.directory)
    base = joined(adapter, base)
    return replace(
        base,
        source=source,
        files=(*base.files, adapter.file, found.config.path),
        notes=(*base.notes, *([note] if note else []), *coded, *lost),
        adapters=(*base.adapters, found.directory),
        identities={**base.identities, **found.identities},
    )


# ---- on its base ----------------------------------------------------------------------------------------------------


def joined(adapter: Adapter, base: Checkpoint) -> Checkpoint:
    """Return a base with the adapter's tensors in their places.

    Raises:
        CheckpointError: If the adapter does not fit.
    """
    if adapter.config.tokens and not any("trainable_tokens_delta" in each.parts for each in adapter.modules.values()):
        raise FormatError(f"{adapter.file}: has no rows for trainable_token_indices of {adapter.config.path.name}")
    base = _untied(adapter, base)
    modules, parameters = sorted_modules(adapter)
    base = _resized(adapter, base, _naming(modules, base))
    entries = _apply(adapter, base, modules, parameters)
    return replace(base, entries=entries, notes=(*base.notes, *_half(adapter, base, entries)))


def _naming(modules: Mapping[str, Module], base: Checkpoint) -> Callable[[str], str]:
    """Return how names in an adapter become the base's."""
    routers = {name: router_place(each, base.entries) for name, each in modules.items() if each.key != name}
    rename = naming([name for name in modules if name not in routers], base.entries)
    return lambda name: routers.get(name) or rename(name)


def _apply(
    adapter: Adapter, base: Checkpoint, modules: Mapping[str, Module], parameters: Sequence[Parameter]
) -> dict[str, Tensor]:
    """Return the base's tensors with the adapter's in their places."""
    rename = _naming(modules, base)
    problems: list[str] = []
    changed = adapted_experts(adapter, parameters, base)
    for name, own in _without_tied_copy(adapter, base).items():
        place = rename(name) if rename(name) in base.entries else name
        target = base.entries.get(place)
        if target is None or target.shape != own.shape:
            problems.append(_whole_problem(name, own, target))
        else:
            changed[place] = ReplacedTensor(target, own)
    cache, edits = Recent[LowRank](), Recent[Edit]()
    for module in modules.values():
        for suffix, change in _changes(adapter, module, base, f"{rename(module.name)}.weight").items():
            name = f"{rename(module.name)}.{suffix}"
            target = changed.get(name) or base.entries.get(name)
            if target is None or not _fits(change, target):
                problems.append(_module_problem(name, change, target, base))
            elif isinstance(change, Rule):
                changed[name] = Edited(target, change.own, change.load, edits, change.unit)
            else:
                changed[name] = AdaptedTensor(target, change, cache)
    if problems:
        more = f"; {len(problems) - 1} more do not fit" if len(problems) > 1 else ""
        raise MismatchError(f"{adapter.file} does not fit {base.source}: {problems[0]}{more}")
    _refuse_untying(adapter, base, changed)
    return {name: changed.get(name, entry) for name, entry in base.entries.items()}


def _half(adapter: Adapter, base: Checkpoint, entries: Mapping[str, Tensor]) -> list[str]:
    """Return a note where an adapter changes a module in some layers alone, and its config does not say why."""
    changed = {name for name, entry in entries.items() if isinstance(entry, AdaptedTensor | Edited)}
    kinds = {kind_of(name) for name in changed}
    lost = [name for name in entries if name not in changed and kind_of(name) in kinds and not is_behind(name, base.config)]
    if not adapter.config.everywhere or not lost:
        return []
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    said = f"has no factors for {lost[0]!r}{more}, which its target_modules name as they name those of other layers"
    return [f"{adapter.file}: {said}; is the file complete?"]


def _changes(adapter: Adapter, module: Module, base: Checkpoint, weight: str) -> Mapping[str, Product | Rule]:
    """Return what happens to a module's weight and, rarely, to its bias."""
    if "trainable_tokens_delta" in module.parts:
        return {"weight": _rows(adapter, module, base, weight)}
    if adapter.config.kind != "LORA":
        return changes(adapter, module, base.entries, weight, _transposed(adapter, base, module.name, weight))
    return _factors(adapter, module, base, weight)


def _rows(adapter: Adapter, module: Module, base: Checkpoint, weight: str) -> Rule:
    """Return the rule that replaces single rows of an embedding."""
    own, tokens, target = module.parts["trainable_tokens_delta"], adapter.config.tokens, base.entries.get(weight)
    rows = tokens.get("") or next((rows for end, rows in tokens.items() if f".{module.name}".endswith(f".{end}")), ())
    if len(own.shape) != 2 or len(rows) != own.shape[0] or len(set(rows)) < len(rows):
        raise FormatError(
            f"{adapter.file}: module {module.name!r} brings rows {list(own.shape)} of an embedding, {adapter.config.path.name} "
            f"names {len(set(rows))} tokens"
        )
    if target is None or target.shape[1:] != own.shape[1:] or max(rows, default=0) >= target.shape[0]:
        there = "nothing" if target is None else f"{list(target.shape)}"
        raise MismatchError(
            f"{adapter.file} does not fit {base.source}: it replaces rows up to {max(rows, default=0)} of {weight!r} by "
            f"{list(own.shape)}, there is {there}; if its vocabulary was resized, resize the base first "
            "(resize_token_embeddings) and save it"
        )
    return replaced_rows(own, rows, target)


def _factors(adapter: Adapter, module: Module, base: Checkpoint, weight: str) -> dict[str, Factors]:
    """Return what LoRA adds to a module's weight and, rarely, to its bias."""
    parts, config, file = module.parts, adapter.config, adapter.file
    embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    a, b = module.pair(adapter, *names)
    magnitude = parts.get("lora_magnitude_vector")
    if config.dora != (magnitude is not None) or (magnitude is not None and magnitude.elements != b.shape[0]):
        found = "none" if magnitude is None else str(list(magnitude.shape))
        raise FormatError(f"{file}: module {module.name!r}: lora_magnitude_vector: use_dora is {config.dora}, found {found}")
    scale = config.scale_of(module.key)
    transposed = embedding or _transposed(adapter, base, module.name, weight)
    factors = {"weight": Factors(a, b, scale, transposed, magnitude)}
    if "lora_B.bias" in parts:
        factors["bias"] = Factors(None, parts["lora_B.bias"], scale)
    return factors


def _transposed(adapter: Adapter, base: Checkpoint, module: str, weight: str) -> bool:
    """Say whether the base stores a module [in, out]; peft decides it by the module's class, which shapes and names tell."""
    if (told := _told_by_shape(adapter.modules[module], base, weight)) is not None:
        return told
    if has_conv1d(base.config):
        return is_conv1d(base.config, weight.removesuffix(".weight"))
    # Of an architecture that is not known: what other modules tell, and the flag, which is of the last module that was adapted.
    told = {name: _told_by_shape(each, base, weight.replace(module, name)) for name, each in adapter.modules.items()}
    alike = {name: one for name, one in told.items() if _last(name) == _last(module)}
    if len(known := set(alike.values()) - {None}) == 1:
        return True in known
    if not adapter.config.fan_in_fan_out and True not in told.values():
        return False
    if len(alike) == len(told):
        return adapter.config.fan_in_fan_out
    raise UnsupportedError(
        f"{adapter.file}: module {module!r} is square, and neither its config nor that of {base.source} (model_type "
        f"{base.config.get('model_type')!r}) says whether it is stored transposed; merge it with peft (merge_and_unload)"
    )


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _told_by_shape(module: Module, base: Checkpoint, weight: str) -> bool | None:
    """Say whether a matrix is stored [in, out] where its shape tells; None where it is square, or not there."""
    a, b = module.parts.get("lora_A"), module.parts.get("lora_B")
    if a is None or b is None or len(a.shape) != 2 or len(b.shape) != 2 or b.shape[0] == a.shape[1]:
        return None
    return weight in base.entries and base.entries[weight].shape == (a.shape[1], b.shape[0])


def _fits(factors: Product | Rule, target: Tensor) -> bool:
    return target.shape == factors.shape and target.dtype.kind == "float"


def _module_problem(name: str, factors: Product | Rule, target: Tensor | None, base: Checkpoint) -> str:
    if target is None and name == SCORE:
        return (
            f"it adapts {name!r}, a head that was drawn at random and is in no file; train with it in peft's modules_to_save "
            "(task_type SEQ_CLS), which saves it whole"
        )
    if target is None:
        near = ", ".join(map(repr, alike(name, base.entries)[:3]))
        return f"it adapts {name!r}, which is not there{f' (what ends alike: {near})' if near else ''}"
    return f"it adapts {name!r} as {list(factors.shape)}, there it is {target.dtype.name} {list(target.shape)}"


def _whole_problem(name: str, own: Tensor, target: Tensor | None) -> str:
    if target is None:
        return (
            f"it brings {name!r}, which is not there; save the base with that module first (an encoder's classifier with its "
            "head, say): the adapter replaces it"
        )
    advice = ""
    if own.shape[1:] == target.shape[1:]:
        advice = "; if its vocabulary was resized, resize the base first (resize_token_embeddings) and save it"
    return f"it brings {name!r} as {list(own.shape)}, there it is {list(target.shape)}{advice}"


def _resized(adapter: Adapter, base: Checkpoint, rename: Callable[[str], str]) -> Checkpoint:
    """Return a base with the vocabulary that an adapter brings, where it was trained on a resized one.

    peft saves the embedding whole then, and the head; an adapter that brings one of two is refused where it does not fit.
    """
    names = [name for name in base.entries if name == HEAD or name.endswith(EMBEDDINGS)]
    own = {rename(name) if rename(name) in base.entries else name: each for name, each in adapter.whole.items()}
    brought = {name: own[name] for name in names if name in own and own[name].shape[1:] == base.entries[name].shape[1:]}
    rows = {each.shape[:1] for each in brought.values()}
    if not brought or len(brought) < len(names) or len(rows) > 1 or rows == {base.entries[names[0]].shape[:1]}:
        return base
    (size,) = rows.pop()
    content, text = {**base.config, "vocab_size": size}, base.config.get("text_config")
    if isinstance(text, dict):
        content = {**base.config, "text_config": {**text, "vocab_size": size}}
    note = f"{base.source}: {base.entries[names[0]].shape[0]} tokens; read with the {size} of {adapter.file.parent}"
    entries = {**base.entries, **{name: ReplacedTensor(base.entries[name], each) for name, each in brought.items()}}
    return replace(base, entries=entries, own_config=content, notes=(*base.notes, note))


# ---- tied heads -----------------------------------------------------------------------------------------------------


def ties_head(base: Checkpoint) -> bool:
    """Say whether a language model's head is its embedding; where nothing tells, whether it has no head of its own."""
    architectures = base.config.get("architectures") or [""]
    silent = "tie_word_embeddings" not in base.config and HEAD not in base.entries
    return (silent or ties(base.config)) and architectures[0].endswith(_LANGUAGE_MODELS)


def _without_tied_copy(adapter: Adapter, base: Checkpoint) -> dict[str, StoredTensor]:
    """Drop a head that is a copy of the embedding that the adapter brings too, where the base ties the two."""
    embedding = next((own for name, own in adapter.whole.items() if name.endswith(EMBEDDINGS)), None)
    head = adapter.whole.get(HEAD)
    if head is None or embedding is None or HEAD in base.entries or not ties_head(base) or not same_bytes(head, embedding):
        return adapter.whole
    return {name: own for name, own in adapter.whole.items() if name != HEAD}


def _untied(adapter: Adapter, base: Checkpoint) -> Checkpoint:
    """Untie a base where the adapter brings its head or its embedding whole, as peft does when it merges the two."""
    embedding = embedding_of(base.entries)
    if embedding is None or HEAD in base.entries or not ties_head(base):
        return base
    whole = {
        HEAD if name == HEAD else EMBEDDINGS for name in _without_tied_copy(adapter, base) if name.endswith((HEAD, *EMBEDDINGS))
    }
    copied = HEAD in adapter.whole and HEAD not in whole
    if not whole or copied or any(f"{name}.weight".endswith((HEAD, *EMBEDDINGS)) for name in adapter.modules):
        return base
    content = {**base.config, "tie_word_embeddings": False}
    note = f"{base.source}: its head was its embedding; {adapter.file.parent} changes one of the two alone, so they are untied"
    return replace(base, entries={**base.entries, HEAD: embedding}, notes=(*base.notes, note), own_config=content)


def _refuse_untying(adapter: Adapter, base: Checkpoint, changed: dict[str, Tensor]) -> None:
    """Refuse to change an embedding alone that is also the head: the adapter stands for a model that is not tied."""
    embedding = next((name for name in changed if name.endswith(EMBEDDINGS)), None)
    kept = HEAD in adapter.whole and isinstance(changed.get(embedding or ""), ReplacedTensor)
    kept = kept or (bool(adapter.config.tokens) and isinstance(changed.get(embedding or ""), Edited))  # peft ties those rows
    if embedding is not None and ties_head(base) and not kept:
        raise UnsupportedError(
            f"{adapter.file}: changes {embedding!r} alone, which {base.source} ties to {HEAD}; a tied model cannot hold that: "
            "untie the base first (tie_word_embeddings false, with a head of its own)"
        )
