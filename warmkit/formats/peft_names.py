"""Names of peft's modules in a state dict that holds base and adapter: which of the two a tensor belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from warmkit.errors import FormatError, UnsupportedError

PREFIX = "base_model.model."
_FACTOR = re.compile(
    r"(?P<module>.+\.(?:lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector))\.(?P<adapter>[^.]+)"
    r"(?P<kind>\.weight|\.bias)?"
)
_TRAINED = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<adapter>[^.]+)\.(?P<rest>.+)")  # whole, in place of
_ORIGINAL = ".original_module."
_LAYER = ".base_layer."


@dataclass(frozen=True)
class Halves:
    """Base and adapter.

    Attributes:
        base: The base's own name of each of its tensors, by the name that was saved; a module that was trained whole
            (`modules_to_save`) is there, what it replaces is not.
        adapter: What an adapter's file would call each of the adapter's, by the name that was saved.
    """

    base: dict[str, str]
    adapter: dict[str, str]


def halves(names: Iterable[str], where: str) -> Halves | None:
    """Tell base and adapter apart; None where there is no adapter.

    Examples:
        >>> halves(["base_model.model.q.base_layer.weight", "base_model.model.q.lora_A.default.weight"], "x")
        ... # doctest: +NORMALIZE_WHITESPACE
        Halves(base={'base_model.model.q.base_layer.weight': 'q.weight'},
               adapter={'base_model.model.q.lora_A.default.weight': 'base_model.model.q.lora_A.weight'})

    Raises:
        FormatError: If two tensors have one name then.
        UnsupportedError: If there are several adapters, or adapters on adapters.
    """
    base, adapter, adapters = dict[str, str](), dict[str, str](), set[str]()
    for name in names:
        if match := _FACTOR.fullmatch(name):
            adapter[name] = match["module"] + (match["kind"] or "")
        elif match := _TRAINED.fullmatch(name):
            base[name] = f"{match['module']}.{match['rest']}".removeprefix(PREFIX)
        else:
            if _ORIGINAL not in name:
                base[name] = name.removeprefix(PREFIX).replace(_LAYER, ".", 1)
            continue
        adapters.add(match["adapter"])
    if not adapter:
        return None
    if len(adapters) > 1:
        raise UnsupportedError(f"{where}: holds several adapters ({', '.join(sorted(adapters))}); save one of them alone")
    if twice := next((name for name in base.values() if _LAYER in name), None):
        raise UnsupportedError(f"{where}: holds an adapter on an adapter ({twice!r}); merge it with peft (merge_and_unload)")
    for half in (base, adapter):
        if len(set(half.values())) < len(half):
            raise FormatError(f"{where}: two tensors have one name, once peft's own parts of names are left out")
    return Halves(base, adapter)
