"""Extraction of an adapter: from a model back to low-rank factors on its base, and what is lost on the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from warmkit._version import __version__
from warmkit.common.json_files import dump_json
from warmkit.common.progress import Advance, progress
from warmkit.common.whole_files import writing
from warmkit.engine.prepare import check_apart, small_files
from warmkit.engine.staging import Staging
from warmkit.errors import UsageError, nearest
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtypes import DTYPES, DType, parse_output_dtype
from warmkit.formats.held import read_whole
from warmkit.formats.safetensors_file import build_header
from warmkit.formats.tensors import Tensor
from warmkit.layouts.adapter_config import CONFIG, WEIGHTS
from warmkit.layouts.adapters import ties_head
from warmkit.layouts.compatibility import EMBEDDINGS, align
from warmkit.layouts.groups import layer_of
from warmkit.layouts.memory_names import adaptable, check_modules, names_in_memory, no_module, stacks
from warmkit.layouts.opening import open_checkpoint
from warmkit.layouts.orientation import is_conv1d
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.truncated_svd import truncated_svd
from warmkit.sources.file_identity import check_unchanged, identity_of
from warmkit.sources.files import Files
from warmkit.verbs.extract_experts import Experts, check_targets, find_experts
from warmkit.verbs.extraction import Extraction, ModuleLoss, RestLoss

PREFIX = "base_model.model."
LOOKUPS = (*EMBEDDINGS, "relative_attention_bias.weight", "wpe.weight", "position_embeddings.weight")
ROWS = 1 << 22  # elements of a difference that are looked at together when its loss is measured


def extract_lora(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    init: str | os.PathLike[str],
    rank: int | None = None,
    energy: float | None = None,
    targets: Sequence[str] | None = None,
    experts: bool = False,
    save_rest: bool = False,
    dtype: str = "float32",
    force: bool = False,
    advance: Advance | bool | None = None,
) -> Extraction:
    """Extract a LoRA adapter from a model: B A is the nearest of its rank to W - W0, for every matrix of the layers.

    Args:
        model: The model, a merge for instance.
        output: Directory to create.
        init: The dense base that the adapter will be loaded on.
        rank: Of every module, 16 unless `energy` is given.
        energy: Instead, the share of each module's squared norm to keep; ranks then differ.
        targets: Ends of module names (`q_proj`); by default every matrix inside a layer.
        experts: Also factors for the experts and routers of a mixture, as peft's target_parameters; needs transformers 5.
        save_rest: Save other tensors that changed (norms, biases, embeddings, heads) whole, as modules_to_save.
        dtype: Of the factors.
        force: Replace an adapter that is there, in one step at the end.
        advance: Called with the bytes read since the last call and the total; True draws a bar, False none; by default there
            is one in a notebook.

    Returns:
        The adapter's modules, and the share of the squared norm of W - W0 that each does not hold.

    Raises:
        WarmkitError: Any of its kinds; the destination is untouched then.
    """
    started = time.perf_counter()
    kind = parse_output_dtype(dtype)
    _check(rank, energy)
    base, tuned = open_checkpoint(init), open_checkpoint(model)
    if base.adapters:
        raise UsageError(f"--init {init}: is an adapter on a base; expected the dense model that the new adapter goes on")
    check_apart(Path(output), [base, tuned])
    aligned = align([base, tuned])
    chosen, named = _choose(base, targets), names_in_memory(base)
    stacked, fit = (find_experts(base), adaptable(base, named)) if experts else ([], {*chosen})
    held = {name for each in stacked for names in each.tensors for name in names}
    chosen = [name for name in chosen if name not in held]
    routers = [name for name in chosen if name not in fit]  # a matrix that is a parameter like the experts
    if experts:
        check_targets(base, stacked, (named[name].removesuffix(".weight") for name in chosen if name in fit))
    else:
        check_modules(base, chosen, named, targets)
    plan = [
        rank,
        energy,
        chosen,
        [*map(str, stacked)],
        save_rest,
        kind.name,
        base.fingerprint(),
        tuned.fingerprint(),
        __version__,
    ]
    staging, identity = Staging(Path(output), force), xxhash.xxh3_128_hexdigest(json.dumps(plan).encode())
    finished = staging.finished_before(identity)  # measured again for the report, not written
    if not finished:
        staging.check()
    total = 2 * base.nbytes
    factors, modules = dict[str, NDArray[Any]](), list[ModuleLoss]()
    with Files({**base.identities, **tuned.identities}) as files, progress(advance, "extracting") as tell:

        def report(tensor: Tensor) -> None:
            tell(2 * tensor.nbytes, total)

        for name in chosen:
            difference = _difference(files, base.entries[name], aligned.entries[1][name])
            module = named[name].removesuffix(".weight")
            conv1d = is_conv1d(base.config, name.removesuffix(".weight"))
            loss, a, b = _factor(module, difference.T if conv1d else difference, rank or 16, energy, kind)
            modules.append(loss)
            factors |= {f"{PREFIX}{module}.lora_A.weight": a, f"{PREFIX}{module}.lora_B.weight": b}
            report(base.entries[name])
        for each in stacked:
            loss, a, b = each.factors(
                base.entries,
                aligned.entries[1],
                lambda before, after: _difference(files, before, after),
                lambda name, difference: _factor(name, difference, rank or 16, energy, kind),
            )
            modules.append(loss)
            factors |= {f"{PREFIX}{each.file_name}.lora_A.weight": a, f"{PREFIX}{each.file_name}.lora_B.weight": b}
            for name in {name for names in each.tensors for name in names}:
                report(base.entries[name])
        norms = _rest_norms(files, base, aligned.entries[1], [*chosen, *held], report)
        saved = _saved(base, chosen, norms, named, {each.container for each in stacked}) if save_rest else {}
        config = _config(base, modules, saved, named, stacked, [named[name] for name in routers])
        whole = {saved[name]: aligned.entries[1][name] for name in saved}
        parameters = sum(each.size for each in factors.values()) + sum(each.elements for each in whole.values())
        if finished:
            staging.remove()
        else:
            _write(staging, identity, config, factors, kind, whole, files, [base, tuned])
    rest = tuple(RestLoss(name, norm, name in saved) for name, norm in norms.items())
    seconds = time.perf_counter() - started
    return Extraction(Path(output), config["base_model_name_or_path"], tuple(modules), rest, parameters, aligned.notes, seconds)


def _check(rank: int | None, energy: float | None) -> None:
    if rank is not None and energy is not None:
        raise UsageError("expected a rank or an energy, found both; give --rank or --energy")
    if rank is not None and rank < 1:
        raise UsageError(f"rank must be at least 1, found {rank}")
    if energy is not None and not 0 < energy <= 1:
        raise UsageError(f"energy must be above 0 and at most 1, found {energy}")


def _choose(base: Checkpoint, targets: Sequence[str] | None) -> list[str]:
    """Return the names of the matrices that get factors."""
    matrices = {
        name.removesuffix(".weight"): name
        for name, entry in base.entries.items()
        if name.endswith(".weight") and len(entry.shape) == 2 and entry.dtype.kind == "float" and not name.endswith(LOOKUPS)
    }
    if targets is None:
        found = [name for name in matrices.values() if layer_of(name) != name]
        if not found:
            raise UsageError(f"{base.source}: has no matrices in layers; name modules with --targets")
        return found
    for target in targets:
        if stack := next((name for name in stacks(base) if _ends(name.removesuffix(".weight"), target)), None):
            raise no_module(base, stack)
        if not any(_ends(module, target) for module in matrices):
            ends = sorted({module.rpartition(".")[2] for module in matrices})
            raise UsageError(f"{base.source}: no matrix is called {target!r}{nearest(target, ends)}")
    return [name for module, name in matrices.items() if any(_ends(module, target) for target in targets)]


def _ends(module: str, target: str) -> bool:
    return module == target or module.endswith(f".{target}")


def _difference(files: Files, before: Tensor, after: Tensor) -> NDArray[Any]:
    wide = DTYPES["F64" if "F64" in (before.dtype.name, after.dtype.name) else "F32"]
    result = read_whole(files, after, wide)
    result -= read_whole(files, before, wide)
    return result


def _factor(
    module: str, difference: NDArray[Any], rank: int, energy: float | None, dtype: DType
) -> tuple[ModuleLoss, NDArray[Any], NDArray[Any]]:
    """Return the loss and the two factors, in storage type."""
    thin = truncated_svd(difference, rank, energy)
    a, b = (_converted(each, dtype.storage) for each in (thin.a, thin.b))
    wide_a, wide_b = (_converted(each, difference.dtype.name) for each in (a, b))
    norm = loss = 0.0
    step = max(1, ROWS // difference.shape[1])
    for start in range(0, len(difference), step):
        part = difference[start : start + step].astype(np.float64)
        norm += float(np.vdot(part, part))
        part -= wide_b[start : start + step] @ wide_a
        loss += float(np.vdot(part, part))
    return ModuleLoss(module, thin.a.shape[0], norm, loss, thin.exact), a, b


def _converted(values: NDArray[Any], storage: str) -> NDArray[Any]:
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.name == storage:
        return flat.reshape(values.shape)
    target = np.empty(flat.size, storage)
    NumbaKernels().convert(flat, target)
    return target.reshape(values.shape)


def _rest_norms(
    files: Files, base: Checkpoint, tuned: dict[str, Tensor], chosen: Iterable[str], report: Callable[[Tensor], None]
) -> dict[str, float]:
    """Return the squared norms of the other tensors' differences, where they are not zero."""
    skipped, norms = set(chosen), dict[str, float]()
    for name, entry in base.entries.items():
        if name in skipped or entry.dtype.kind != "float":
            continue
        difference = _difference(files, entry, tuned[name]).astype(np.float64).ravel()
        if norm := float(np.vdot(difference, difference)):
            norms[name] = norm
        report(entry)
    return norms


def _saved(
    base: Checkpoint, chosen: Sequence[str], norms: dict[str, float], named: dict[str, str], experts: set[str]
) -> dict[str, str]:
    """Return the names in the adapter of tensors to save whole.

    A bias beside factors is the adapted module's own; any other tensor takes all of its module with it, which is how peft loads
    them. Left out are parameters of modules that hold adapted ones or experts, and an embedding that is the head as well.
    """
    adapted = {name.removesuffix(".weight") for name in chosen}
    tied = ties_head(base)
    saved: dict[str, str] = {}
    for name in norms:
        module, _, parameter = name.rpartition(".")
        if named.get(name, name).rpartition(".")[0] in experts:
            continue
        if module in adapted:
            saved[name] = f"{PREFIX}{named[name].rpartition('.')[0]}.base_layer.{parameter}"
        elif module and not any(each.startswith(f"{module}.") for each in adapted) and not (tied and name.endswith(EMBEDDINGS)):
            own = [each for each in base.entries if each.rpartition(".")[0] == module]
            saved |= {each: PREFIX + named[each] for each in own if all(one in named for one in own)}
    return saved


def _config(
    base: Checkpoint,
    modules: Sequence[ModuleLoss],
    saved: dict[str, str],
    named: dict[str, str],
    experts: Sequence[Experts],
    routers: Sequence[str],
) -> dict[str, Any]:
    held = {*map(str, experts), *(name.removesuffix(".weight") for name in routers)}
    parameters = sorted({f"{each.container.rpartition('.')[2]}.{each.name}" for each in experts} | {*routers})
    names = {each.name for each in modules} - held
    ranks = [each.rank for each in modules]
    usual = max(set(ranks), key=ranks.count)
    keys = {name.removesuffix(".weight"): name for name in routers}
    pattern = {keys.get(each.name, each.name): each.rank for each in modules if each.rank != usual}
    architecture = (base.config.get("architectures") or [""])[0]
    kept = {named[name].rpartition(".")[0] for name in saved}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if architecture.endswith(("ForCausalLM", "LMHeadModel")) else None,
        "base_model_name_or_path": str(base.path.resolve()) if Path(base.source).expanduser().exists() else base.source,
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": _targets(named.values(), names),
        **({"target_parameters": parameters} if parameters else {}),
        "modules_to_save": sorted(kept - names - held) or None,
        "bias": "lora_only" if kept & names else "none",
        "fan_in_fan_out": any(is_conv1d(base.config, name) for name in names),
        "lora_dropout": 0.0,
        "init_lora_weights": True,
    }


def _targets(tensors: Iterable[str], names: set[str]) -> list[str]:
    """Return the last parts of the names where these say the same, as people and servers write them, else whole names."""
    ends = {name.rpartition(".")[2] for name in names}
    everything = {name.rpartition(".")[0] for name in tensors}
    return sorted(ends if all(each in names for each in everything if each.rpartition(".")[2] in ends) else names)


def _write(
    staging: Staging,
    identity: str,
    config: dict[str, Any],
    factors: dict[str, NDArray[Any]],
    dtype: DType,
    whole: dict[str, Tensor],
    files: Files,
    inputs: Sequence[Checkpoint],
) -> None:
    """Write the adapter and publish it, if its inputs are still what they were."""
    shapes = [(name, dtype, values.shape) for name, values in factors.items()]
    shapes += [(name, entry.dtype, entry.shape) for name, entry in whole.items()]
    shapes.sort(key=lambda each: -each[1].itemsize)
    header, weights = build_header(shapes, {"format": "pt"}), staging.result / WEIGHTS
    staging.open(identity, resume=False)
    try:
        with writing(staging.destination), weights.open("wb") as file:
            file.write(header)
            for name, _, _ in shapes:
                if name in factors:
                    file.write(factors[name].tobytes())
                else:
                    file.write(read_whole(files, whole[name], whole[name].dtype).tobytes())
            file.flush()
            written = {weights: identity_of(os.fstat(file.fileno()))}
        with writing(staging.destination):
            (staging.result / CONFIG).write_bytes(dump_json(config))
        for each in inputs:
            each.check()
            check_unchanged(each.identities, small_files(each))
    except BaseException:
        staging.remove()
        raise
    try:
        staging.publish(written)
    finally:
        staging.close()
