"""Factors of the experts of a layer, which peft adapts as one parameter (`target_parameters`), on a base fused or one by one.

The factors of E experts lie in two matrices: lora_A [E r, a] holds one expert after another; of lora_B [b, r E] the columns e,
E + e, 2 E + e, ... are those of expert e. Its difference is B_e A_e where the parameter is [E, b, a] in memory, and A_e' B_e'
where it is [E, a, b] (GPT-OSS; everything before peft 0.19; in 0.19.0 all but GPT-OSS); the shape tells which, unless it is
square.

unsloth before its fix of September 2026 trained with the experts one after another in lora_B too (`grouped_by_expert`); nothing
but its config says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from warmkit.errors import FormatError, MismatchError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.held import Recent
from warmkit.formats.tensors import Tensor
from warmkit.layouts.adapted import AdaptedStack, AdaptedTensor, Cut, Factors
from warmkit.layouts.adapter_config import GROUPED
from warmkit.layouts.adapter_file import Adapter, Module
from warmkit.layouts.adapter_names import bare
from warmkit.layouts.layer_settings import layer_number
from warmkit.layouts.orientation import governing_type
from warmkit.merging.low_rank import LowRank

# Parameters of experts in the order in which transformers declares them: peft wraps the first one first.
ORDER = ("gate_up_proj", "gate_up_proj_bias", "up_proj", "down_proj", "down_proj_bias")
# The matrices of one expert that a parameter is made of, under the names of different architectures.
MATRICES = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "up_proj": (("up_proj",),),
    "down_proj": (("down_proj",), ("w2",)),
}
# Architectures that are fused on disk too, and whether peft takes their experts as [E, in, out] (it does not with Llama 4's).
TRANSPOSED = {"gpt_oss": True, "openai_privacy_filter": True, "aria_text": True, "llama4_text": False}
BLOCKS = frozenset(("mlp", "block_sparse_moe", "feed_forward", "mixer"))
# Ends of names on disk that stand for others in memory.
RENAMED = {
    "input_linear.weight": "experts.gate_up_proj",  # Granite
    "output_linear.weight": "experts.down_proj",
    "experts.fc1.weight": "experts.gate_up_proj",  # Aria
    "experts.fc2.weight": "experts.down_proj",
    "router.layer.weight": "router.weight",  # Granite
}
_WRAPPER = ".base_layer"
_ONE = re.compile(r"(?P<place>.+)\.(?P<expert>\d+)\.(?P<matrix>\w+)\.weight")
TOLD_WRONG, TOLD_SINCE = (0, 19, 0), (0, 19, 1)  # versions of peft that tell [E, out, in] from [E, in, out]


@dataclass(frozen=True)
class Parameter:
    """A parameter that is adapted as a whole, in memory.

    Attributes:
        container: The module that holds it.
        name: Its name there.
        module: The factors.
    """

    container: str
    name: str
    module: Module

    def __str__(self) -> str:
        return f"{self.container}.{self.name}"


@dataclass
class Stack:
    """Where the experts of a layer lie in a base: tensors of all of them, and matrices of one by number, by their names."""

    fused: dict[str, Tensor]
    single: dict[str, dict[int, Tensor]]


def sorted_modules(adapter: Adapter) -> tuple[dict[str, Module], list[Parameter]]:
    """Tell modules from parameters. peft names only the module that holds a parameter; of several, the first lies innermost.

    Raises:
        FormatError: If the file holds the factors of fewer or more parameters than the config targets.
    """
    plain, nested = dict[str, Module](), dict[str, list[Module]]()
    for name, module in adapter.modules.items():
        container = _container(name)
        if adapter.config.targeted(container):
            nested.setdefault(container, []).append(module)
        else:
            plain[name] = module
    found = list[Parameter]()
    for container, modules in nested.items():
        names = _declared(adapter, container, adapter.config.targeted(container))
        if len(names) != len(modules):
            raise FormatError(
                f"{adapter.file}: {container!r} has the factors of {len(modules)} parameters, {adapter.config.path.name} "
                f"targets {len(names)} ({', '.join(names)}): one of the two is not complete"
            )
        inner_first = sorted(modules, key=lambda each: -len(each.name))
        for name, module in zip(names, inner_first):
            keyed = Module(container, module.parts, f"{container}.{name}")
            if name == "weight":  # of a router: a matrix like any other
                plain[container] = keyed
            else:
                found.append(Parameter(container, name, keyed))
    return plain, found


def _container(module: str) -> str:
    while module.endswith(_WRAPPER):
        module = module.removesuffix(_WRAPPER)
    return module


def _declared(adapter: Adapter, container: str, names: list[str]) -> list[str]:
    if len(names) > 1 and (unknown := set(names) - set(ORDER)):
        raise UnsupportedError(
            f"{adapter.file}: {container!r} has factors of several parameters, and the order of {min(unknown)!r} among them is "
            "not known here; merge it with peft (merge_and_unload)"
        )
    return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else 0)


def adapted_experts(adapter: Adapter, parameters: Sequence[Parameter], base: Checkpoint) -> dict[str, Tensor]:
    """Return the base's tensors that hold the experts, adapted.

    Raises:
        CheckpointError: If the factors do not fit.
    """
    if not adapter.config.parameters:
        return {}
    stacks = stacks_of(base.entries)
    _refuse_lost(adapter, base, stacks)
    found = [
        _Experts(adapter, each, base, place, stacks[place]) for each in parameters if (place := _place(each, stacks)) in stacks
    ]
    if len(found) < len(parameters):
        lost = next(each for each in parameters if _place(each, stacks) not in stacks)
        raise MismatchError(
            f"{adapter.file} does not fit {base.source}: it adapts {str(lost)!r}, and there are no such experts"
        )
    cache, whole = Recent[LowRank](), Recent["NDArray[Any]"](8)
    told = {each.place: turned for each in found if (turned := each.told()) is not None}
    changed = dict[str, Tensor]()
    for each in found:
        changed |= each.adapted(told.get(each.place), cache, whole)
    if found:
        _refuse_half(found, stacks)
    return changed


def stacks_of(tensors: Mapping[str, Tensor]) -> dict[str, Stack]:
    """Return where the experts of every layer lie, by the name of what holds them."""
    found = dict[str, Stack]()
    for name, tensor in tensors.items():
        if one := _ONE.fullmatch(name):
            stack = found.setdefault(one["place"], Stack({}, {}))
            stack.single.setdefault(one["matrix"], {})[int(one["expert"])] = tensor
        elif len(tensor.shape) == 3:
            place, _, parameter = _in_memory(name).rpartition(".")
            found.setdefault(place, Stack({}, {})).fused[parameter] = tensor
    return found


def _in_memory(name: str) -> str:
    old = next((old for old in RENAMED if name.endswith(f".{old}")), "")
    return name.removesuffix(old) + RENAMED.get(old, "")


def router_place(module: Module, tensors: Mapping[str, Tensor]) -> str | None:
    """Return what the base calls a router that is adapted as a parameter; None where that is not known."""
    found = [name for name in tensors if bare(_in_memory(name), BLOCKS) == bare(module.key, BLOCKS)]
    return found[0].removesuffix(".weight") if len(found) == 1 else None


def _place(parameter: Parameter, stacks: Mapping[str, Stack]) -> str:
    """Return what the base calls a module that holds experts: itself, or the one with the same name apart from wrappers."""
    container = parameter.container
    if container in stacks:
        return container
    alike = [place for place in stacks if bare(place, BLOCKS) == bare(container, BLOCKS)]
    return alike[0] if len(alike) == 1 else container


def _refuse_lost(adapter: Adapter, base: Checkpoint, stacks: Mapping[str, Stack]) -> None:
    """Refuse a config that targets parameters of the base for which the file has no factors, or none at all."""
    config, containers = adapter.config, {_container(name) for name in adapter.modules}
    lost = [target for target in config.parameters if not any(config.targeted(each, target) for each in containers)]
    there = [target for target in lost if _is_there(target, base, stacks)]
    if there or len(lost) == len(config.parameters):
        raise FormatError(
            f"{adapter.file}: has no factors for {[*there, *lost][0]!r}, which target_parameters of {config.path.name} names: "
            "one of the two is not complete"
        )


def _is_there(target: str, base: Checkpoint, stacks: Mapping[str, Stack]) -> bool:
    end, _, name = target.rpartition(".")
    within = bare(end or "experts", BLOCKS)
    places = [place for place in stacks if f".{bare(place, BLOCKS)}".endswith(f".{within}")]
    return any(_holds(stacks[place], name) for place in places) or any(
        f".{each}".endswith(f".{target}") for each in base.entries
    )


def _holds(stack: Stack, parameter: str) -> bool:
    return parameter in stack.fused or any({*names} <= stack.single.keys() for names in MATRICES.get(parameter, ()))


def _refuse_half(found: Sequence[_Experts], stacks: Mapping[str, Stack]) -> None:
    """Refuse factors for the experts of some layers alone where the config targets those of all."""
    places, config = {each.place for each in found}, found[0].base.config
    if any(re.search(r"\d", target) for target in found[0].adapter.config.parameters):
        return
    others = [place for place in stacks if place not in places and not is_behind(place, config)]
    for each in found:
        kind = kind_of(each.place)
        if lost := [place for place in others if kind_of(place) == kind and _holds(stacks[place], each.parameter.name)]:
            raise MismatchError(
                f"{each.adapter.file}: has no factors for {lost[0]!r} of {each.base.source}, which its target_parameters name "
                f"as they name {each.place!r}: the file is not complete, or its base is another"
            )


def is_behind(name: str, config: Mapping[str, Any]) -> bool:
    """Say whether a tensor is of a layer behind those of the model, which predicts further tokens; peft never sees those."""
    number, inner = layer_number(name), config.get("text_config")
    layers = (inner if isinstance(inner, dict) else config).get("num_hidden_layers")
    return number is not None and isinstance(layers, int) and number[1] >= layers


def kind_of(name: str) -> str:
    """Return a name without its numbers."""
    return re.sub(r"\d+", "#", name)


@dataclass(frozen=True)
class _Experts:
    """Factors of one parameter, and where its experts lie in the base."""

    adapter: Adapter
    parameter: Parameter
    base: Checkpoint
    place: str
    stack: Stack

    def told(self) -> bool | None:
        """Say whether the difference of an expert is A' B' and not B A; None where it is square.

        Raises:
            MismatchError: If it is neither.
        """
        rows, columns = self._shape()
        a, b = self._factors
        if (rows, columns) not in ((b.shape[0], a.shape[1]), (a.shape[1], b.shape[0])):
            raise MismatchError(
                f"{self.adapter.file} does not fit {self.base.source}: it adapts {str(self.parameter)!r} with factors of "
                f"{list(a.shape)} and {list(b.shape)}, there an expert is {[rows, columns]}"
            )
        return None if rows == columns else (rows, columns) != (b.shape[0], a.shape[1])

    def adapted(self, told: bool | None, cache: Recent[LowRank], whole: Recent[NDArray[Any]]) -> dict[str, Tensor]:
        """Return the tensors of the experts, adapted.

        Args:
            told: What another parameter of the same experts tells of a square one.
            cache: Factors in use.
            whole: Factors of all experts.
        """
        own = self.told()
        turned = own if own is not None else told if told is not None else self._known()
        (a, b), scale = self._factors, self.adapter.config.scale_of(self.parameter.module.key)

        def factors(expert: int, rows: slice) -> Factors:
            rank = a.shape[0] // self._count
            block = slice(expert * rank, (expert + 1) * rank)
            columns = block if self.adapter.config.layout == GROUPED else slice(expert, None, self._count)
            one = Cut(a, (block, rows if turned else slice(None)), whole)
            return Factors(one, Cut(b, (slice(None) if turned else rows, columns), whole), scale, turned)

        if fused := self.stack.fused.get(self.parameter.name):
            return {fused.name: AdaptedStack(fused, tuple(factors(each, slice(None)) for each in range(self._count)), cache)}
        changed = dict[str, Tensor]()
        for expert in range(self._count):
            start = 0
            for matrix in self._matrices:
                end = start + matrix[expert].shape[0]
                changed[matrix[expert].name] = AdaptedTensor(matrix[expert], factors(expert, slice(start, end)), cache)
                start = end
        return changed

    @cached_property
    def _matrices(self) -> list[dict[int, Tensor]]:
        """The matrices of each expert that this parameter is made of, by its number."""
        single = self.stack.single
        names = next((names for names in MATRICES.get(self.parameter.name, ()) if {*names} <= single.keys()), ())
        return [single[name] for name in names]

    @cached_property
    def _count(self) -> int:
        fused = self.stack.fused.get(self.parameter.name)
        return fused.shape[0] if fused else max(map(len, self._matrices), default=0)

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        return self.parameter.module.pair(self.adapter, "lora_A", "lora_B", self._count)

    def _shape(self) -> tuple[int, ...]:
        """Return the shape of an expert: of its matrices one on top of the other where there are several."""
        if fused := self.stack.fused.get(self.parameter.name):
            return fused.shape[1:]
        matrices = self._matrices
        if not matrices:
            raise MismatchError(
                f"{self.adapter.file} does not fit {self.base.source}: it adapts {str(self.parameter)!r}, which {self.place!r} "
                "holds neither as one tensor nor as matrices of each expert"
            )
        shapes = [{tensor.shape for tensor in matrix.values()} for matrix in matrices]
        whole = all(sorted(matrix) == list(range(self._count)) for matrix in matrices)
        if (
            not whole
            or any(len(each) > 1 or len(min(each)) != 2 for each in shapes)
            or len({min(each)[1] for each in shapes}) > 1
        ):
            raise MismatchError(
                f"{self.base.source}: the experts of {self.place!r} differ in shape or are not numbered from 0 on"
            )
        return sum(min(each)[0] for each in shapes), min(shapes[0])[1]

    def _known(self) -> bool:
        """Say what `told` cannot from the architecture and peft's version."""
        kind = governing_type(self.base.config, self.place)
        known = TRANSPOSED.get(str(kind)) if self.parameter.name in self.stack.fused else False
        version = self.adapter.config.version
        if known is None or (version is None and not known):
            raise UnsupportedError(
                f"{self.adapter.file}: {str(self.parameter)!r} is square, and neither the model_type {kind!r} nor peft_version "
                f"({version}) says whether peft has it transposed; merge it with peft (merge_and_unload)"
            )
        if known and version is not None and version >= TOLD_WRONG:
            raise UnsupportedError(
                f"{self.adapter.file}: {str(self.parameter)!r} is square and alone, so the file does not say which way its "
                "factors lie, which with transformers 4 is the other way round than with 5; merge it with peft "
                "(merge_and_unload) and the transformers that trained it"
            )
        return known or (version or ()) < TOLD_SINCE
