"""Files of DeepSpeed's ZeRO: which lie in a folder, and what the pickle of each says of weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.pickle_reader import Inert, Names
from warmkit.formats.torch_zip import TorchTensor, read_torch_zip

Shapes: TypeAlias = "dict[str, tuple[int, ...]]"

_OPTIMIZER = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
_MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
_EXPERTS = re.compile(r"(?:layer_\d+_)?expert_\d+_mp_rank_\d+_model_states\.pt|expp_rank_\d+_mp_rank_\d+_optim_states\.pt")
_PIPELINE = re.compile(r"layer_\d+-model_\d+-model_states\.pt")
_UNIVERSAL = "zero/*/fp32.pt"
_ITEMS = {"float32": "<f4", "float64": "<f8", "int64": "<i8", "int32": "<i4"}  # of a step that is a tensor


def _stage(value: Any) -> Any:
    """Return the number of a ZeroStageEnum."""
    return value


_SCALERS = ("LossScaler", "DynamicLossScaler", "LossScalerBase", "LossScaleConfig", "LossScaleProfile")
_NUMPY = (
    *(("numpy", "dtype"), ("numpy", "ndarray"), ("numpy", "bool_"), ("numpy", "float64"), ("numpy", "int64")),
    *((f"numpy.{home}.multiarray", name) for home in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{home}.numeric", "_frombuffer") for home in ("core", "_core")),
    ("numpy.dtypes", "Float64DType"),
)
ZERO_NAMES: Names = {
    ("deepspeed.runtime.zero.config", "ZeroStageEnum"): _stage,
    ("deepspeed.utils.tensor_fragment", "fragment_address"): Inert,
    **{("deepspeed.runtime.fp16.loss_scaler", name): Inert for name in _SCALERS},
    ("deepspeed.runtime.zero.offload_config", "OffloadDeviceEnum"): Inert,
    ("argparse", "Namespace"): Inert,
    **dict.fromkeys(_NUMPY, Inert),
    ("_codecs", "encode"): Inert,
    ("copyreg", "_reconstructor"): Inert,
    ("builtins", "object"): Inert,
    ("__builtin__", "object"): Inert,
}
"""What such files name beside torch's own: a stage is its number, and what says nothing of weights is inert."""


@dataclass(frozen=True)
class Step:
    """Files of one step of a run, the parts of one model.

    Attributes:
        home: Their folder.
        optimizers: The file of every rank's optimizer, by rank.
        models: The files of the model: one, or with stage 3 one a rank.
    """

    home: Path
    optimizers: dict[int, Path]
    models: dict[int, Path]


@dataclass(frozen=True)
class OptimizerFile:
    """What the optimizer of one rank holds: its part of the weights.

    Attributes:
        file: Where it lies.
        sharded: Whether each parameter is cut into the parts of all ranks, as stage 3 does, and not the row of all.
        stage: Of ZeRO; None where the file does not say.
        ranks: How many ranks have a part of every group.
        flat: Weights, one flat tensor for every group of parameters.
        gaps: Elements of padding after each parameter of each group; None where there are none.
        addresses: First element and number of each parameter in `flat`, for every group; None where the file does not say.
        step: Steps that the optimizer took; None where it does not count.
    """

    file: Path
    sharded: bool
    stage: int | None
    ranks: tuple[int, ...]
    flat: tuple[TorchTensor, ...]
    gaps: list[list[int]] | None = None
    addresses: list[dict[str, tuple[int, int]]] | None = None
    step: int | None = None


@dataclass(frozen=True)
class ModelFile:
    """What a file of the model says beside the optimizers' parts.

    Attributes:
        file: Where it lies.
        groups: Shape of every trained parameter, group by group, in the order of the flat tensors; None without ZeRO.
        module: Everything else that it holds; with stage 3 an empty tensor for every parameter.
        buffers: Names of buffers.
        frozen: Shape of every parameter that is not trained; None if those were left out.
        fragments: This rank's part of them.
        shared: Names of which the tensor has another name, with that.
        step: Steps of training.
        parallel: Ranks that a layer is split over, by tensor parallelism.
    """

    file: Path
    groups: list[Shapes] | None
    module: dict[str, TorchTensor]
    buffers: list[str]
    frozen: Shapes | None
    fragments: dict[str, TorchTensor]
    shared: dict[str, str]
    step: int | None
    parallel: int


def is_step(folder: Path) -> bool:
    """Say whether a folder holds a step of ZeRO, a whole one or not."""
    names = [each.name for each in folder.iterdir()]
    ranked = any(_OPTIMIZER.fullmatch(name) or name.startswith("zero_pp_rank_") for name in names)
    models = [name for name in names if _MODEL.fullmatch(name)]
    return ranked or models == ["mp_rank_00_model_states.pt"] or next(folder.glob(_UNIVERSAL), None) is not None


def is_part(name: str) -> bool:
    """Say whether a file is the part of one rank, by its name."""
    return bool(_OPTIMIZER.fullmatch(name)) or (name.startswith("zero_pp_rank_") and bool(_MODEL.fullmatch(name)))


def step_at(folder: Path) -> Step:
    """Return the files of a step.

    Raises:
        UnsupportedError: If they are of a run that also splits layers, stacks them over machines or has experts, or were
            made universal.
        FormatError: If two are of one rank.
    """
    step = Step(folder, {}, {})
    for path in sorted(folder.iterdir()):
        _refuse_kind(path)
        for form, found in ((_OPTIMIZER, step.optimizers), (_MODEL, step.models)):
            if match := form.fullmatch(path.name):
                rank = int(match[1] or 0)
                if int(match[2]):
                    raise model_parallel(path, f"model-parallel rank {int(match[2])}")
                if (other := found.setdefault(rank, path)) != path:
                    raise FormatError(f"{folder}: {other.name} and {path.name} are both of rank {rank}; one is of another save")
    if (part := next(folder.glob(_UNIVERSAL), None)) is not None:
        raise UnsupportedError(
            f"{folder}: a universal checkpoint of DeepSpeed ({part.relative_to(folder)}), which is not read; give the one that "
            "it was made from"
        )
    return step


def _refuse_kind(path: Path) -> None:
    if _EXPERTS.fullmatch(path.name):
        raise UnsupportedError(
            f"{path}: experts of DeepSpeed's MoE, which lie on ranks of their own and are not read; save the whole model "
            "with a tool of the trainer that wrote them"
        )
    if _PIPELINE.fullmatch(path.name):
        raise model_parallel(path, "one layer of a pipeline")


def model_parallel(file: Path, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{file}: {what}: ZeRO is read where every rank has the whole model; put the parts together with a tool of the trainer "
        "that wrote them"
    )


def read_optimizer(file: Path) -> OptimizerFile:
    """Read which part of the weights a rank's optimizer has, and where.

    Raises:
        FormatError: If the file is truncated, or something else.
        UnsupportedError: If it names what is not known, or a version of DeepSpeed wrote it in a way that is not.
    """
    tree = read_torch_zip(file, more=ZERO_NAMES)
    try:
        state = tree["optimizer_state_dict"]
        sharded = "fp32_flat_groups" in state
        stage, ranks = state.get("zero_stage"), state["partition_count"]
        ranks = tuple(ranks) if isinstance(ranks, list) else (ranks,)
        if not sharded and "single_partition_of_fp32_groups" not in state:
            raise UnsupportedError(f"{file}: no float32 weights where DeepSpeed from 0.4 on keeps them; is it older?")
        flat = state["fp32_flat_groups" if sharded else "single_partition_of_fp32_groups"]
        if "ds_zero_partition_groups" in state:
            raise UnsupportedError(f"{file}: experts that DeepSpeed's AutoEP partitioned in their own way, which is not read")
        if not ranks or not all(type(each) is int for each in (stage or 0, *ranks)):
            raise TypeError("ranks")
        if not flat or not all(_is_flat(each) for each in flat):
            raise TypeError("flat groups")
        gaps = state.get("param_alignment_paddings")
        # with round-robin gradients DeepSpeed 0.19.8 notes the places of another order than the one it saves
        dealt = tree["ds_config"]["zero_optimization"].get("round_robin_gradients")
        addresses = None if dealt else state.get("param_slice_mappings")
        return OptimizerFile(
            file,
            sharded,
            stage,
            ranks,
            tuple(flat),
            None if gaps is None else [_naturals(each) for each in gaps],
            None if addresses is None else [{name: _address(each) for name, each in group.items()} for group in addresses],
            _step_of(state),
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FormatError(f"{file}: expected the optimizer states of DeepSpeed's ZeRO ({type(error).__name__})") from None


def _is_flat(tensor: Any) -> bool:
    return isinstance(tensor, TorchTensor) and len(tensor.shape) == 1 and (tensor.strides == (1,) or tensor.shape[0] < 2)


def _naturals(values: Any) -> list[int]:
    if not all(type(each) is int and 0 <= each < 1 << 63 for each in values):
        raise ValueError("sizes")
    return list(values)


def _address(value: Any) -> tuple[int, int]:
    start, count = _naturals((value.state["start"], value.state["numel"]))
    return start, count


def _step_of(state: Mapping[str, Any]) -> int | None:
    """Return the largest number of steps that an optimizer counts."""
    inner = state.get("optimizer_state_dict") or state.get("base_optimizer_state")
    found = [state.get("base_optimizer_state_step")]
    if isinstance(inner, dict):
        kept, groups = inner.get("state") or {}, inner.get("param_groups") or []
        found += [each.get("step") for each in (*kept.values(), *groups) if isinstance(each, dict)]
    steps = [_number(each) for each in found if isinstance(each, TorchTensor) or type(each) is int]
    return max(steps, default=None)


def _number(value: TorchTensor | int) -> int:
    if isinstance(value, int):
        return value
    kind = np.dtype(_ITEMS[value.type_name])
    with value.file.open("rb") as file:
        file.seek(value.offset)
        return int(np.frombuffer(file.read(kind.itemsize), kind)[0])


def read_model(file: Path) -> ModelFile:
    """Read what a file of the model says beside the optimizers' parts.

    Raises:
        FormatError: If the file is truncated, or something else.
        UnsupportedError: If it names what is not known.
    """
    tree = read_torch_zip(file, more=ZERO_NAMES)
    try:
        groups, frozen, step = tree.get("param_shapes"), tree.get("frozen_param_shapes"), tree.get("global_steps")
        module = {} if groups is None else tree["module"]
        return ModelFile(
            file,
            None if groups is None else [_shapes(each) for each in groups],
            _tensors({name: each for name, each in module.items() if isinstance(each, TorchTensor)}),
            list(tree.get("buffer_names") or ()),
            None if frozen is None else _shapes(frozen),
            _tensors(tree.get("frozen_param_fragments") or {}),
            _shared(tree.get("shared_params") or {}),
            step if type(step) is int else None,
            _naturals((tree.get("mp_world_size") or 1,))[0],
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FormatError(f"{file}: expected the model states of DeepSpeed ({type(error).__name__})") from None


def _shapes(value: Any) -> Shapes:
    if not all(isinstance(name, str) and isinstance(shape, tuple) for name, shape in value.items()):
        raise TypeError("shapes")
    return {name: tuple(_naturals(shape)) for name, shape in value.items()}


def _tensors(value: Any) -> dict[str, TorchTensor]:
    if not all(isinstance(name, str) and isinstance(tensor, TorchTensor) for name, tensor in value.items()):
        raise TypeError("a state dict")
    return dict(value)


def _shared(value: Any) -> dict[str, str]:
    if not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise TypeError("names")
    return dict(value)
