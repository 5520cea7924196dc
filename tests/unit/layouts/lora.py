"""Small models of real architectures and adapters on them, written by transformers and peft."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}


def base(folder: Path, architecture: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Path:
    """Write a model with random weights; its vocabulary is an odd number and no size a multiple of a tile."""
    import transformers

    llama = {"num_key_value_heads": 2, "tie_word_embeddings": False, "initializer_range": 0.1}
    gpt2 = {"vocab_size": 61, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": 0.1}
    made: dict[str, Any] = {
        "llama": lambda: transformers.LlamaConfig(**{**SIZES, **llama, **changes}),
        "mistral": lambda: transformers.MistralConfig(**{**SIZES, **llama, **changes}),
        "qwen2": lambda: transformers.Qwen2Config(**{**SIZES, **llama, **changes}),
        "gpt2": lambda: transformers.GPT2Config(**{**gpt2, **changes}),
        "bert": lambda: transformers.BertConfig(**{**SIZES, "initializer_range": 0.1, "num_labels": 1, **changes}),
        "bert to gpt2": lambda: transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
            transformers.BertConfig(**SIZES),
            transformers.GPT2Config(**{**gpt2, "add_cross_attention": True, "is_decoder": True}),
        ),
    }
    kinds = {"bert": "AutoModelForSequenceClassification", "bert to gpt2": "AutoModelForSeq2SeqLM"}
    kind = kinds.get(architecture, "AutoModelForCausalLM")
    torch.manual_seed(seed)
    model = getattr(transformers, kind).from_config(made[architecture]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    model.to(dtype).save_pretrained(folder)
    return folder


def adapter(folder: Path, on: Path, seed: int = 1, task: str | None = None, **config: Any) -> Path:
    """Write an adapter whose every part is random, so that nothing is zero by chance of its initialisation."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = get_peft_model(loaded(on), LoraConfig(task_type=task, **config))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_magnitude" in name:
                    parameter.mul_(0.5 + torch.rand(parameter.shape, generator=generator))
                elif parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder)
    return folder


def dense(on: Path, adapter: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return the weights that peft itself merges."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(PeftModel.from_pretrained(loaded(on, dtype), adapter).merge_and_unload().state_dict())


def save_dense(folder: Path, on: Path, adapter: Path) -> Path:
    """Write the model that peft merges, beside the base's config."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PeftModel.from_pretrained(loaded(on), adapter).merge_and_unload().save_pretrained(folder)
    return folder


def loaded(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(path)
    return getattr(transformers, config.architectures[0]).from_pretrained(path, dtype=dtype)
