"""Config of an adapter: what changes the meaning of its weights and is not known is refused by name."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.common.addresses import shown
from warmkit.common.json_files import read_object
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.layouts.bounded_match import ends_with

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# What makes an adapter more than W + s B A, with what it does.
REFUSED = {
    "layer_replication": "repeats layers of the base",
    "target_parameters": "adapts bare parameters (the experts of a mixture)",
    "trainable_token_indices": "replaces single rows of an embedding",
    "alora_invocation_tokens": "is active only after certain tokens",
    "use_qalora": "pools the inputs of lora_A",
    "monteclora_config": "samples its weights",
    "use_bdlora": "has block-diagonal factors",
    "arrow_config": "routes between adapters",
    "kasa_config": "truncates the base",
    "megatron_config": "is sharded by Megatron",
    "ensure_weight_tying": "shares its factors between tied layers",
}
# Initialisations that change the base too: the adapter is a difference from weights that are in no file.
REFUSED_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Switches and tables that say how the adapter was trained or where it may be, not what its numbers mean.
HARMLESS = frozenset(
    (
        "auto_mapping",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_bias",
        "lora_ga_config",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "runtime_config",
        "target_modules",
        "use_dora",
        "use_rslora",
        "velora_config",
    )
)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9]*://\S+|[\w.-]+/[\w.-]+(?:@[\w./-]+)?")


@dataclass(frozen=True)
class AdapterConfig:
    """A LoRA adapter's config.

    Attributes:
        path: The file.
        base: `base_model_name_or_path`, with `@revision` where it names one; None if it says nothing.
        rank: Of modules that no pattern names.
        alpha: The same.
        rank_pattern: Ranks by regular expressions over the ends of module names.
        alpha_pattern: The same for alpha.
        rslora: Divide by the square root of the rank.
        dora: Magnitudes apart from directions.
        fan_in_fan_out: Whether the last module that was adapted stores [in, out].
        task: What it was trained for (`SEQ_CLS`); None if it does not say.
        trained: The class that was trained, which peft names where there is no task.
    """

    path: Path
    base: str | None
    rank: int
    alpha: float
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    rslora: bool
    dora: bool
    fan_in_fan_out: bool
    task: str | None = None
    trained: str | None = None

    def rank_of(self, module: str) -> int:
        return _matching(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """Return alpha / rank, or alpha / sqrt(rank) (Kalajdzievski, 2023, "A rank stabilization scaling factor")."""
        rank, alpha = self.rank_of(module), _matching(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def _matching(pattern: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """Return the value of the first expression that matches a module's name, or its end after a dot, as peft does."""
    return next((value for key, value in pattern.items() if ends_with(key, module)), otherwise)


def read_config(directory: Path) -> AdapterConfig:
    """Read and check the config of an adapter.

    Raises:
        FormatError: If it is malformed.
        UnsupportedError: If it is no LoRA, or of a variant that is more than W + s B A.
    """
    path = directory / CONFIG
    content = read_object(path)
    _refuse(path, content)
    try:
        return AdapterConfig(
            path=path,
            base=_base(content),
            rank=_rank(content.get("r")),
            alpha=_alpha(content["lora_alpha"]),
            rank_pattern={_expression(key): _rank(rank) for key, rank in (content.get("rank_pattern") or {}).items()},
            alpha_pattern={_expression(key): _alpha(alpha) for key, alpha in (content.get("alpha_pattern") or {}).items()},
            rslora=bool(content.get("use_rslora")),
            dora=bool(content.get("use_dora")),
            fan_in_fan_out=bool(content.get("fan_in_fan_out")),
            task=_named(content.get("task_type")),
            trained=_named((content.get("auto_mapping") or {}).get("base_model_class")),
        )
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError, RecursionError, re.error) as error:
        raise FormatError(
            f"{path}: expected r, lora_alpha and patterns of a LoRA adapter, found something else ({error})"
        ) from None


def _refuse(path: Path, content: dict[str, Any]) -> None:
    kind = content.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(f"{path}: an adapter of the kind {kind!r}; expected 'LORA' (rsLoRA and DoRA are variants of it)")
    for key, what in REFUSED.items():
        if content.get(key):
            raise UnsupportedError(f"{path}: {key}: this adapter {what}, so it stands for no dense weights that are known here")
    if str(content.get("init_lora_weights")).lower().startswith(REFUSED_INITS):
        raise UnsupportedError(
            f"{path}: init_lora_weights {content['init_lora_weights']!r} changed the base as well; convert the adapter with "
            "peft's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    known = HARMLESS | REFUSED.keys()
    unknown = sorted(key for key, value in content.items() if key not in known and (value is True or _table(value)))
    if unknown:
        raise UnsupportedError(f"{path}: {unknown[0]} is not known here and may change what the adapter's weights mean")


def _table(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _base(content: dict[str, Any]) -> str | None:
    base, revision = content.get("base_model_name_or_path"), content.get("revision")
    if not base:
        return None
    return f"{base}@{revision}" if revision else str(base)


def _rank(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"rank {str(value)[:40]!r}")
    return value


def _alpha(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"alpha {str(value)[:40]!r}")
    return float(value)


def _named(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _expression(key: str) -> str:
    ends_with(key, "")
    return key


# ---- which base and which adapter -----------------------------------------------------------------------------------


def is_adapter(directory: Path) -> bool:
    """Say whether a directory is an adapter's and no model's."""
    models = ("model.safetensors", "model.safetensors.index.json")
    return (directory / CONFIG).is_file() and not any((directory / name).is_file() for name in models)


def split(source: str) -> tuple[str, str] | None:
    """Split `BASE+ADAPTER` where both are paths or repositories; None where the whole is a path, or there is no such place.

    Raises:
        CheckpointError: If one of the two is there and the other is not.
    """
    if (found := _pair(source)) is not None or "+" not in source or _here(source):
        return found
    for one, other in (order for pair in _halves(source) for order in (pair, pair[::-1])):
        if _here(one):
            raise CheckpointError(
                f"{shown(source)}: expected BASE+ADAPTER; {shown(one)} is there, {shown(other)} is no path and no repository"
            )
    return None


def _pair(source: str) -> tuple[str, str] | None:
    if "+" not in source or _here(source):
        return None
    halves = _halves(source)
    both = [pair for pair in halves if all(map(_here, pair))] or [pair for pair in halves if all(map(_plausible, pair))]
    return both[0] if both else None


def _halves(source: str) -> list[tuple[str, str]]:
    """Split at every plus sign, the last one first: what stands before it may be a base with an adapter already."""
    places = [match.start() for match in re.finditer(r"\+", source)][::-1]
    return [(source[:place], source[place + 1 :]) for place in places if 0 < place < len(source) - 1]


def _here(path: str) -> bool:
    with contextlib.suppress(OSError, RuntimeError):  # two paths in one may be longer than a name can be
        return Path(path).expanduser().exists()
    return False


def _plausible(source: str) -> bool:
    return _here(source) or bool(_ELSEWHERE.fullmatch(source)) or _pair(source) is not None


def base_of(config: AdapterConfig) -> str:
    """Return the base that an adapter names: relative to the adapter, else to the working directory, else a repository.

    Raises:
        CheckpointError: If it names none.
    """
    if config.base is None:
        raise CheckpointError(f"{config.path}: names no base_model_name_or_path; give the base as BASE+ADAPTER")
    beside = config.path.parent / config.base
    return str(beside) if beside.exists() else config.base
