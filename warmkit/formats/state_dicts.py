"""State dicts of training scripts: which one is the model, under which names, tied or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.dtypes import BY_TORCH_NAME, DType
from warmkit.formats.pieces import GatheredTensor, Piece, contiguous
from warmkit.formats.state_dict_choice import TOP, twice, under
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.formats.torch_zip import TorchTensor

T = TypeVar("T")
Path: TypeAlias = "tuple[str, ...]"

HOMES = ("state_dict", "model_state_dict", "model", "module")  # under which trainers keep the weights, the surest first
WRAPPERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"))
COUNTER = "n_averaged"
_MEANINGS = {  # what the keys of Lightning's WeightAveraging mean, where it says by `averaging_state` that it wrote them
    "state_dict": "the average of Lightning's WeightAveraging",
    "current_model_state": "what training goes on from",
}
DEEPEST = 24  # a pickle may hold itself


def tensors_in(tree: Any, path: Path = ()) -> Iterator[tuple[Path, TorchTensor]]:
    """Yield every tensor of nested mappings and lists, with the keys that lead to it."""
    if isinstance(tree, TorchTensor):
        yield path, tree
    elif len(path) < DEEPEST and isinstance(tree, Mapping | list | tuple):
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for key, value in items:
            named = isinstance(key, str | int) and not isinstance(key, bool)
            for place, tensor in tensors_in(value, (*path, str(key))):
                if not named:
                    raise FormatError(f"{tensor.file}: holds a tensor under a {type(key).__name__}, expected names as keys")
                yield place, tensor


def weights_among(
    tensors: Mapping[Path, T], keys: Sequence[str], where: str, asked: str | None = None
) -> tuple[dict[str, T], list[str]]:
    """Find the weights of the model among everything that was saved.

    They are what lies under the key asked for; without one under `state_dict`, `model_state_dict`, `model` or `module`, the
    least deep first; else what lies at the top; else all there is.

    Args:
        tensors: Every tensor, by the keys that lead to it.
        keys: All keys at the top, those without tensors too.
        where: The file, for messages.
        asked: The state dict that the user names.

    Returns:
        The model's tensors by name, and a note where something was left aside.

    Raises:
        FormatError: If several state dicts could be meant, or there is none.
        StateDictError: If the one that is named is not there.
    """
    if () in tensors:
        raise FormatError(f"{where}: holds one tensor without a name; expected a state dict")
    if asked is not None:
        tensors, beside = under(tensors, asked, HOMES, where)
        notes = [f"{where}: read {asked}, left aside {_shown(beside)}"] if beside else []
        found, said = weights_among(tensors, list(dict.fromkeys(path[0] for path in tensors)), where)
        return found, notes + said
    groups: dict[Path, dict[str, T]] = {}
    for (*home, name), tensor in tensors.items():
        groups.setdefault(tuple(home), {})[name] = tensor
    if not groups:
        raise FormatError(f"{where}: holds no tensors")
    named = sorted((home for home in groups if home and home[-1] in HOMES), key=lambda home: (len(home), HOMES.index(home[-1])))
    chosen = named[0] if named else () if () in groups else next(iter(groups))
    if not named and chosen and len(groups) > 1:
        found = ", ".join(".".join(home) for home in list(groups)[:6])
        raise FormatError(
            f"{where}: expected the weights under {', '.join(HOMES)}, or at the top; found tensors under {found}; name one: "
            "--state-dict KEY"
        )
    _refuse_rivals(groups, chosen, named, keys, where)
    aside = [key for key in keys if key != chosen[0]] if chosen else [".".join(home) for home in groups if home]
    notes = [f"{where}: read {'.'.join(chosen) or 'the top'}, left aside {_shown(aside)}"] if aside else []
    names, said = plain_names(groups[chosen], where)
    return {plain: groups[chosen][name] for name, plain in names.items()}, notes + said


def _refuse_rivals(
    groups: Mapping[Path, Mapping[str, Any]], chosen: Path, named: Sequence[Path], keys: Sequence[str], where: str
) -> None:
    """Refuse a second state dict that could be meant as well: of the same model (an average of it), or as near to the top."""
    ours = set(map(_unwrapped, groups[chosen]))
    for home, group in groups.items():
        same = 2 * len(ours & set(map(_unwrapped, group))) > len(ours)
        if home != chosen and (same or (home in named and len(home) == len(chosen))):
            one, two = (".".join(each) or TOP for each in (chosen, home))
            said = [f"{each} (the top)" if each == TOP else each for each in (one, two)]
            if "averaging_state" in keys:
                said = [f"{each} ({_MEANINGS[each]})" if each in _MEANINGS else each for each in said]
            raise FormatError(
                f"{where}: two state dicts could be meant, {said[0]} and {said[1]}; name one: --state-dict {one}, or "
                f"--state-dict {two}"
            )


def plain_names(names: Iterable[str], where: str) -> tuple[dict[str, str], list[str]]:
    """Return the model's own name of every tensor, in order, and notes: without what wrappers and averagers put around them.

    Raises:
        FormatError: If two tensors have one name then, or the model is there twice: as it learns, and its average.
    """
    known = list(names)
    kept, notes = [name for name in known if name != COUNTER], list[str]()
    if len(kept) == len(known) or not kept or not all(name.startswith("module.") for name in kept):
        kept = known
    else:
        notes.append(f"{where}: left aside {COUNTER}: torch's AveragedModel, whose average is what is read")
    plain = {name: _unwrapped(name) for name in kept}
    if len(set(plain.values())) < len(plain):
        raise FormatError(f"{where}: two tensors have one name, once wrappers ({', '.join(sorted(WRAPPERS))}) are left out")
    prefix = _common_prefix(plain.values())
    if prefix:
        notes.append(f"{where}: every name starts with {prefix!r}, which was left out")
    plain = {name: short.removeprefix(prefix) for name, short in plain.items()}
    _refuse_average_beside(plain.values(), where)
    return plain, notes


def _refuse_average_beside(names: Iterable[str], where: str) -> None:
    """Refuse a model that is there twice under two first names, one of which says that it is an average."""
    for other, average in twice(names):
        raise FormatError(
            f"{where}: the model is there twice, as {other}.* and {average}.*; name one: --state-dict {average}, or "
            f"--state-dict {other}"
        )


def _shown(names: Sequence[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _common_prefix(names: Iterable[str]) -> str:
    """Return what DataParallel and trainers put before every name: `module.`; `model.` where another `model.` follows."""
    known = list(names)
    for prefix in ("module.", "model."):
        sure = prefix == "module." or any(name.startswith("model.model.") for name in known)
        if sure and all(name.startswith(prefix) for name in known):
            return prefix
    return ""


def element_type(type_name: str, where: str, name: str) -> DType:
    """Return the type of a tensor.

    Raises:
        UnsupportedError: If it is one that cannot be averaged.
    """
    if type_name not in BY_TORCH_NAME:
        raise UnsupportedError(
            f"{where}: tensor {name!r} is {type_name}, which cannot be averaged; merge bfloat16 or float32 checkpoints"
        )
    return BY_TORCH_NAME[type_name]


def entry(name: str, tensor: TorchTensor) -> Tensor:
    """Return a tensor that can be read in parts."""
    dtype = element_type(tensor.type_name, str(tensor.file), name)
    if contiguous(tensor.shape, tensor.strides):
        return StoredTensor(name, dtype, tensor.shape, tensor.file, tensor.offset)
    piece = Piece(tensor.file, tensor.offset, (0,) * len(tensor.shape), tensor.shape, tensor.strides)
    return GatheredTensor(name, dtype, tensor.shape, (piece,))


def shared(tensors: Mapping[str, TorchTensor]) -> dict[str, str]:
    """Return which names are the same tensor in the same place as an earlier name: tied weights."""
    first: dict[TorchTensor, str] = {}
    return {name: kept for name, tensor in tensors.items() if (kept := first.setdefault(tensor, name)) != name}
