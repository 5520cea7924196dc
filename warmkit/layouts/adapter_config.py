"""Config of an adapter: what changes the meaning of its weights and is not known is refused by name."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warmkit.common.addresses import shown
from warmkit.common.json_files import read_object
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.layouts.bounded_match import ends_with

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# Kinds that are read, and the keys of rank and alpha in their configs.
KINDS: dict[str, tuple[str | None, str | None]] = {
    "LORA": ("r", "lora_alpha"),
    "ADALORA": ("init_r", "lora_alpha"),
    "LOHA": ("r", "alpha"),
    "LOKR": ("r", "alpha"),
    "VERA": ("r", None),
    "IA3": (None, None),
    "OFT": (None, None),
    "BOFT": (None, None),
    "HRA": (None, None),
    "MISS": (None, None),
    "LN_TUNING": (None, None),
    "TRAINABLE_TOKENS": (None, None),
}
# Kinds of peft 0.21.2 that stand for no dense weights of the base's shape: they add tokens, choose by the input, or add biases.
NOT_DENSE = frozenset(
    (
        "ADAPTION_PROMPT",
        "BEFT",
        "CARTRIDGE",
        "CPT",
        "LILY",
        "MULTITASK_PROMPT_TUNING",
        "POLY",
        "P_TUNING",
        "PREFIX_TUNING",
        "PROMPT_TUNING",
        "SHADOW",
        "XLORA",
    )
)
# What makes an adapter more than W + s B A, with what it does.
REFUSED = {
    "layer_replication": "repeats layers of the base",
    "alora_invocation_tokens": "is active only after certain tokens",
    "use_qalora": "pools the inputs of lora_A",
    "monteclora_config": "samples its weights",
    "use_bdlora": "has block-diagonal factors",
    "arrow_config": "routes between adapters",
    "kasa_config": "truncates the base",
    "megatron_config": "is sharded by Megatron",
}
# Initialisations that change the base too: the adapter is a difference from weights that are in no file.
REFUSED_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Kinds whose `rank_pattern` is one of ranks, by expressions.
_BY_PATTERN = ("LORA", "LOHA", "LOKR")
# Keys of other kinds that their arithmetic depends on.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "OFT": ("use_cayley_neumann", "num_cayley_neumann_terms", "coft", "eps"),
    "HRA": ("apply_GS",),
}
# Further switches and tables of other kinds.
_HARMLESS_OF_KINDS = frozenset(
    (
        "block_share",
        "decompose_both",
        "feedforward_modules",
        "init_ia3_weights",
        "init_weights",
        "rank_dropout_scale",
        "save_projection",
        "token_indices",
        "use_effective_conv2d",
    )
)
# Switches and tables that say how the adapter was trained or where it may be, not what its numbers mean.
HARMLESS = frozenset(
    (
        "auto_mapping",
        "corda_config",
        "ensure_weight_tying",
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
        "unsloth_fused_expert_lora",
        "target_modules",
        "target_parameters",
        "trainable_token_indices",
        "use_dora",
        "use_rslora",
        "velora_config",
    )
)
# How unsloth packs lora_B of experts: since its fix of September 2026 as peft does, before that one expert after another.
LAYOUT, RANK_MAJOR, GROUPED = "lora_B_layout", "rank_major", "grouped_by_expert"
_ELSEWHERE = re.compile(r"[a-z][a-z0-9]*://\S+|[\w.-]+/[\w.-]+(?:@[\w./-]+)?")


@dataclass(frozen=True)
class AdapterConfig:
    """An adapter's config.

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
        parameters: Parameters that are adapted as a whole, by the ends of their names: experts.
        layout: How lora_B packs the experts.
        version: Of peft; None if it does not say.
        kind: peft_type.
        tokens: Rows of an embedding that are replaced, by the end of its module's name; "" is the input embedding.
        everywhere: Whether modules are named by their last parts alone, and so adapted in every layer.
        options: Keys of a kind that its arithmetic depends on.
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
    parameters: tuple[str, ...] = ()
    layout: str = RANK_MAJOR
    version: tuple[int, ...] | None = None
    kind: str = "LORA"
    tokens: dict[str, tuple[int, ...]] = field(default_factory=lambda: {})
    everywhere: bool = False
    options: dict[str, Any] = field(default_factory=lambda: {})

    def rank_of(self, module: str) -> int:
        return _matching(self.rank_pattern, module, self.rank)

    def targeted(self, module: str, *targets: str) -> list[str]:
        """Return the names of a module's parameters that are adapted as a whole; one without a module is that of experts."""
        pairs = [target.rpartition(".") for target in targets or self.parameters]
        return sorted({name for end, _, name in pairs if f".{module}".endswith(f".{end or 'experts'}")})

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
    kind = _refuse(path, content)
    rank, alpha = KINDS[kind]
    patterns = content if kind in _BY_PATTERN else {}
    try:
        return AdapterConfig(
            path=path,
            base=_base(content),
            rank=_rank(content.get(rank)) if rank else 1,
            alpha=_alpha(content[alpha]) if alpha else 1.0,
            rank_pattern={_expression(key): _rank(each) for key, each in (patterns.get("rank_pattern") or {}).items()},
            alpha_pattern={_expression(key): _alpha(each) for key, each in (patterns.get("alpha_pattern") or {}).items()},
            rslora=bool(content.get("use_rslora")),
            dora=bool(content.get("use_dora")),
            fan_in_fan_out=bool(content.get("fan_in_fan_out")),
            task=_named(content.get("task_type")),
            trained=_named((content.get("auto_mapping") or {}).get("base_model_class")),
            parameters=tuple(sorted(map(str, content.get("target_parameters") or ()))),
            layout=_layout(path, content),
            version=_version(content.get("peft_version")),
            kind=kind,
            everywhere=_everywhere(content),
            options={key: content[key] for key in _OPTIONS.get(kind, ()) if key in content},
            tokens=_tokens(content.get("trainable_token_indices") or (content.get("token_indices") if rank is None else None)),
        )
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError, RecursionError, re.error) as error:
        raise FormatError(
            f"{path}: expected {', '.join(filter(None, (rank, alpha))) or 'its keys'} and patterns of an adapter of the "
            f"kind {kind}, found something else ({error})"
        ) from None


def _refuse(path: Path, content: dict[str, Any]) -> str:
    """Return the kind of an adapter, unless it or a feature of it is not read."""
    kind = str(content.get("peft_type"))
    if kind not in KINDS:
        way = (
            "it stands for no dense weights"
            if kind in NOT_DENSE
            else "merge it with peft (merge_and_unload), and give the result"
        )
        raise UnsupportedError(f"{path}: an adapter of the kind {kind!r}, which is not read ({', '.join(KINDS)} are): {way}")
    for key, what in REFUSED.items():
        if content.get(key):
            raise UnsupportedError(f"{path}: {key}: this adapter {what}, so it stands for no dense weights that are known here")
    if str(content.get("init_lora_weights")).lower().startswith(REFUSED_INITS):
        raise UnsupportedError(
            f"{path}: init_lora_weights {content['init_lora_weights']!r} changed the base as well; convert the adapter with "
            "peft's save_pretrained(..., path_initial_model_for_weight_conversion=...), or give it on the base that training "
            "left (unload(), save_pretrained) and write init_lora_weights: true"
        )
    known = HARMLESS | REFUSED.keys() | (_HARMLESS_OF_KINDS if kind != "LORA" else frozenset()) | {*_OPTIONS.get(kind, ())}
    unknown = sorted(key for key, value in content.items() if key not in known and (value is True or _table(value)))
    if unknown:
        raise UnsupportedError(f"{path}: {unknown[0]} is not known here and may change what the adapter's weights mean")
    return kind


def _layout(path: Path, content: dict[str, Any]) -> str:
    """Return how lora_B packs the experts.

    Raises:
        UnsupportedError: If unsloth trained it and nothing says with which of its two packings.
    """
    named = content.get(LAYOUT)
    detail: dict[str, Any] = (content.get("unsloth_fused_expert_lora") or {}).get("parameters") or {}
    said = {str(each) for each in (named, *(each.get(LAYOUT) for each in detail.values())) if each is not None}
    if len(said) == 1 and said <= {RANK_MAJOR, GROUPED}:
        return said.pop()
    unsloth = bool((content.get("auto_mapping") or {}).get("unsloth_fixed")) or str(_base(content)).startswith("unsloth/")
    several = content.get("r") != 1 or content.get("rank_pattern")  # of rank 1 the two are one
    if said or (unsloth and content.get("target_parameters") and several):
        found = f"found {', '.join(sorted(said))}" if said else "which unsloth packed in two ways and does not say how"
        raise UnsupportedError(
            f"{path}: adapts experts, {found}: write {LAYOUT!r}: {GROUPED!r} into it if the adapter was trained before "
            f"unsloth's fix of 17 September 2026, else {RANK_MAJOR!r}"
        )
    return RANK_MAJOR


def _everywhere(content: dict[str, Any]) -> bool:
    targets, limits = content.get("target_modules"), ("layers_to_transform", "exclude_modules")
    plain = isinstance(targets, list) and all(isinstance(each, str) and "." not in each for each in targets)
    return plain and not any(content.get(key) for key in limits)


def _tokens(value: Any) -> dict[str, tuple[int, ...]]:
    if not value:
        return {}
    named = value if isinstance(value, dict) else {"": value}
    if not all(isinstance(rows, list) and all(type(row) is int and row >= 0 for row in rows) for rows in named.values()):
        raise ValueError(f"indices of tokens {str(value)[:40]!r}")
    return {str(module): tuple(rows) for module, rows in named.items()}


def _version(value: Any) -> tuple[int, ...] | None:
    found = re.match(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", value) if isinstance(value, str) else None
    return tuple(map(int, found.groups())) if found else None


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
