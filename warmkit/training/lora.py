"""LoRA through peft: adapters learn, and are merged into the weights in the end, so that every output is a plain model."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import torch

from warmkit.common.random_streams import seed_torch
from warmkit.errors import UnsupportedError, UsageError
from warmkit.training.recipe_sections import LoraSection


def add_adapters(model: Any, lora: LoraSection, kind: str, seed: int) -> Any:
    """Wrap a model so that adapters (and a reward model's head) learn alone.

    Args:
        model: A transformers model.
        lora: The recipe's section.
        kind: peft's task type, `SEQ_CLS` or `CAUSAL_LM`.
        seed: Of the adapters' random half.

    Raises:
        UnsupportedError: If a target shares its weight with another layer.
        UsageError: If peft is not installed.

    Source: Hu et al. (2021).
    """
    if importlib.util.find_spec("peft") is None:
        raise UsageError("lora needs peft; install it: pip install 'warmkit[train]'")
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        target_modules=lora.targets or "all-linear",
        task_type=kind,
    )
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        seed_torch("lora weights", seed)
        warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)  # a name that transformers gave up
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)  # GPT-2's matrices; peft sees it itself
        wrapped: Any = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if name.removeprefix("base_model.model.").replace(".modules_to_save.default", "") in frozen:
            parameter.requires_grad_(False)  # peft's copy of the head would learn its bias too
    _refuse_tied(wrapped)
    return wrapped


def _refuse_tied(model: Any) -> None:
    """Refuse to adapt a matrix that another module shares: merged in the end, both would change, where one has learned."""
    for name, layer in adapted_layers(model).items():
        own = layer.get_base_layer()
        others = (each for each in model.modules() if each is not own)
        if any(parameter is own.weight for each in others for parameter in each.parameters(recurse=False)):
            short = name.removeprefix("base_model.model.")
            raise UnsupportedError(
                f"lora.targets: {short} shares its weight with another layer (tied embeddings), so an adapter on it cannot be "
                "merged into a plain model; leave it out"
            )


def adapted_layers(model: Any) -> dict[str, Any]:
    """Return the layers under adapters by name; none of a model without."""
    if not hasattr(model, "merge_and_unload"):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@torch.no_grad()
def product(layer: Any) -> torch.Tensor:
    """Return what an adapter adds to its layer's weight, s B A, as the weight lies (GPT-2's transposed), float32."""
    return layer.get_delta_weight(layer.active_adapters[0]).float()


def merged(model: Any) -> Any:
    """Return the plain model, adapters merged; a model without adapters as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
