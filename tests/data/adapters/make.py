"""Makes the adapters of this folder with peft, and the weights that peft merges of them, all in float64.

Run it with peft 0.21.2 and transformers 5.23.0, from anywhere: `python tests/data/adapters/make.py`; with peft 0.18.1 and
0.19.0 it makes what those had otherwise, `CASE-VERSION`. `bases/NAME` is a model
with random weights; `CASE` an adapter on one, whose every number is random; `CASE/dense.safetensors` the tensors that
`merge_and_unload` changed, under the names that the base has on disk; `kinds.json` all kinds that peft registers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    MissConfig,
    OFTConfig,
    PeftModel,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
SIZES: dict[str, Any] = {
    "vocab_size": 12,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,
}
EXPERTS: dict[str, Any] = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 6, "head_dim": 4}
LOCAL: dict[str, Any] = {"num_local_experts": 3, "num_experts_per_tok": 2, "intermediate_size": 6}
T: Any = transformers
BASES: dict[str, Any] = {
    "llama": lambda: T.LlamaForCausalLM(T.LlamaConfig(**SIZES)),
    "llama-wide": lambda: T.LlamaForCausalLM(T.LlamaConfig(**{**SIZES, "hidden_size": 16, "intermediate_size": 16})),
    "llama-tied": lambda: T.LlamaForCausalLM(T.LlamaConfig(**{**SIZES, "tie_word_embeddings": True})),
    "qwen2": lambda: T.Qwen2ForCausalLM(T.Qwen2Config(**SIZES)),
    "gpt2": lambda: T.GPT2LMHeadModel(
        T.GPT2Config(vocab_size=12, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0)
    ),
    "mixtral": lambda: T.MixtralForCausalLM(T.MixtralConfig(**{**SIZES, **LOCAL, "num_hidden_layers": 2})),
    "mixtral-fused": lambda: T.MixtralForCausalLM(T.MixtralConfig(**{**SIZES, **LOCAL, "num_hidden_layers": 2})),
    "qwen3-moe": lambda: T.Qwen3MoeForCausalLM(T.Qwen3MoeConfig(**{**SIZES, **EXPERTS})),
    "gpt-oss": lambda: T.GptOssForCausalLM(T.GptOssConfig(**{**SIZES, **LOCAL, "intermediate_size": 8, "head_dim": 4})),
    "llama4": lambda: T.Llama4ForCausalLM(
        T.Llama4TextConfig(**{**SIZES, **LOCAL, "num_experts_per_tok": 1, "intermediate_size_mlp": 6, "head_dim": 4})
    ),
}
BOTH = ["experts.gate_up_proj", "experts.down_proj"]
CASES: dict[str, tuple[str, Any]] = {
    "experts-one-by-one": ("mixtral", LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], target_parameters=BOTH)),
    "experts-fused": ("mixtral-fused", LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], target_parameters=BOTH)),
    "experts-patterns": (
        "qwen3-moe",
        LoraConfig(
            r=2,
            use_rslora=True,
            target_modules=[],
            target_parameters=["gate_up_proj", "mlp.experts.down_proj", "gate.weight"],
            rank_pattern={"experts.gate_up_proj": 4, r".*\.gate\.weight": 1},
            alpha_pattern={"down_proj": 5},
        ),
    ),
    "experts-gate-up": ("qwen3-moe", LoraConfig(r=2, target_modules=[], target_parameters=["experts.gate_up_proj"])),
    "experts-transposed": ("gpt-oss", LoraConfig(r=3, target_modules=[], target_parameters=BOTH)),
    "experts-square": ("gpt-oss", LoraConfig(r=3, target_modules=[], target_parameters=BOTH[1:])),
    "experts-llama4": ("llama4", LoraConfig(r=3, target_modules=[], target_parameters=BOTH)),
    "tokens": ("llama", LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[3, 11, 0])),
    "tokens-of-two": (
        "llama",
        LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [1, 2], "lm_head": [4]}),
    ),
    "tokens-tied": ("llama-tied", LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[3, 5])),
    "tokens-alone": ("llama", TrainableTokensConfig(token_indices=[2, 7], target_modules=["embed_tokens"])),
    "resized": ("llama", LoraConfig(r=2, target_modules=["q_proj"])),
    "resized-tied": ("llama-tied", LoraConfig(r=2, target_modules=["q_proj"])),
    "pissa-converted": ("llama", LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], init_lora_weights="pissa")),
    "pissa": ("llama", LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], init_lora_weights="pissa")),
    "saved-tied": (
        "llama-tied",
        LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    ),
    "eva": ("llama", LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="eva")),
    "ia3": ("qwen2", IA3Config(target_modules=["q_proj", "o_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "ia3-conv1d": (
        "gpt2",
        IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True),
    ),
    "adalora": ("llama", AdaLoraConfig(init_r=4, lora_alpha=3, target_modules=["q_proj", "v_proj"], total_step=9)),
    "adalora-pruned": ("llama", AdaLoraConfig(init_r=4, lora_alpha=3, target_modules=["q_proj", "v_proj"], total_step=9)),
    "adalora-conv1d": (
        "gpt2",
        AdaLoraConfig(init_r=2, target_modules=["c_attn"], total_step=9, fan_in_fan_out=True),
    ),
    "loha": ("llama", LoHaConfig(r=2, alpha=3, target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 3})),
    "lokr": ("llama", LoKrConfig(r=4, alpha=3, target_modules=["q_proj", "down_proj"])),
    "lokr-low-rank": ("llama-wide", LoKrConfig(r=1, alpha=3, target_modules=["q_proj", "k_proj"], decompose_both=True)),
    "vera": ("llama", VeraConfig(r=3, target_modules=["q_proj", "k_proj"])),
    "vera-without-projections": ("llama", VeraConfig(r=3, target_modules=["q_proj", "k_proj"], save_projection=False)),
    "oft": ("llama", OFTConfig(oft_block_size=4, target_modules=["q_proj", "down_proj"])),
    "oft-terms": ("llama", OFTConfig(r=2, oft_block_size=0, target_modules=["q_proj", "k_proj"], num_cayley_neumann_terms=3)),
    "oft-exact": ("llama", OFTConfig(oft_block_size=4, target_modules=["q_proj"], use_cayley_neumann=False)),
    "oft-shared": ("qwen2", OFTConfig(oft_block_size=2, target_modules=["q_proj"], block_share=True, bias="oft_only")),
    "oft-constrained": ("llama", OFTConfig(oft_block_size=4, target_modules=["q_proj"], coft=True, eps=0.1)),
    "boft": ("llama", BOFTConfig(boft_block_size=4, target_modules=["q_proj", "down_proj"])),
    "hra": ("llama", HRAConfig(r=3, target_modules=["q_proj", "down_proj"])),
    "hra-orthogonal": ("llama", HRAConfig(r=3, apply_GS=True, target_modules=["q_proj"])),
    "miss": ("llama", MissConfig(r=5, target_modules=["q_proj", "down_proj"])),
    "miss-mini": ("llama", MissConfig(r=2, mini_r=4, init_weights="mini", target_modules=["q_proj"])),
    "miss-bat": ("llama", MissConfig(r=4, init_weights="bat", target_modules=["q_proj", "down_proj"])),
    "ln-tuning": ("llama", LNTuningConfig(target_modules=["input_layernorm", "norm"])),
}
# The two sides of experts, which versions of peft have the other way round.
OLDER = {"0.18.1": ("experts-square", "experts-patterns"), "0.19.0": ("experts-square", "experts-llama4")}
ROWS = 14  # of a resized vocabulary


def loaded(base: str) -> Any:
    kind = json.loads((HERE / "bases" / base / "config.json").read_text())["architectures"][0]
    return getattr(transformers, kind).from_pretrained(HERE / "bases" / base, dtype=torch.float64)


def saved(model: Any, base: str, folder: Path) -> dict[str, torch.Tensor]:
    """Write a model as the base is written, and return its tensors."""
    model.save_pretrained(folder, save_original_format=base != "mixtral-fused")
    return load_file(folder / "model.safetensors")


def make_base(name: str) -> None:
    torch.manual_seed(sum(map(ord, name)))
    folder = HERE / "bases" / name
    saved(BASES[name]().double(), name, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def make_case(name: str) -> None:
    base, config = CASES[name.removesuffix(f"-{peft.__version__}")]
    folder, seed = HERE / name, torch.Generator().manual_seed(sum(map(ord, name)))
    torch.manual_seed(1)
    model = loaded(base)
    if name.startswith("resized"):
        model.resize_token_embeddings(ROWS, mean_resizing=False)
    model = get_peft_model(model.float() if name.startswith("pissa") else model, config)
    start = Path(tempfile.mkdtemp()) / "start"
    if name == "pissa-converted":
        model.peft_config["default"].init_lora_weights = True  # as peft says to save the start
        model.save_pretrained(start)
        model.peft_config["default"].init_lora_weights = "pissa"
    if name == "adalora-pruned":
        names = [f"model.layers.0.self_attn.{each}.lora_E.default" for each in ("q_proj", "v_proj")]
        model.peft_config["default"].rank_pattern = dict(zip(names, [[True, False, True, True], [False, True, False, False]]))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.requires_grad or "tokens_delta" in key or (name.startswith("resized") and "embed" in key):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=seed, dtype=parameter.dtype))
    how = {"path_initial_model_for_weight_conversion": str(start)} if name == "pissa-converted" else {}
    model.save_pretrained(folder, **how)
    (folder / "README.md").unlink()
    file = folder / "adapter_config.json"
    said = {**json.loads(file.read_text()), "base_model_name_or_path": f"../bases/{base}"}
    file.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
    if name in ("pissa", "vera-without-projections"):
        return  # refused: what is missing is in no file
    plain = loaded(base)
    if name.startswith("resized"):
        plain.resize_token_embeddings(ROWS, mean_resizing=False)
    merged = PeftModel.from_pretrained(plain, folder, autocast_adapter_dtype=False).merge_and_unload()
    with tempfile.TemporaryDirectory() as place:
        found = saved(merged, base, Path(place))
    before = load_file(HERE / "bases" / base / "model.safetensors")
    assert before.keys() == found.keys()
    changed = {key: value for key, value in found.items() if not torch.equal(value, before[key])}
    assert changed
    save_file(changed, folder / "dense.safetensors")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    current = peft.__version__ == "0.21.2"
    for each in [*BASES, *CASES] if current else [f"{case}-{peft.__version__}" for case in OLDER[peft.__version__]]:
        shutil.rmtree(HERE / ("bases" if each in BASES else "") / each, ignore_errors=True)
        (make_base if each in BASES else make_case)(each)
    if current:
        (HERE / "kinds.json").write_text(json.dumps(sorted(each.value for each in PEFT_TYPE_TO_TUNER_MAPPING), indent=1) + "\n")
