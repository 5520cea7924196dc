"""One tiny model of each kind as two versions of transformers and mlx-lm write it. By hand, in this order:

    PYTHON_OF_TRANSFORMERS_4 make.py 4 && PYTHON_OF_TRANSFORMERS_5 make.py 5 && PYTHON_OF_MLX make.py mlx

`4` is what transformers 4.57.6 writes. `memory` is the state dict of 5.23.0 that has loaded it, written by safetensors, and
`5` is what 5.23.0 writes of that. `mlx` is `memory` or `5`, converted by mlx-lm 0.32.2.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TEXT = {
    "vocab_size": 12,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {"num_local_experts": 3, "num_experts": 3, "num_experts_per_tok": 1, "moe_intermediate_size": 6}
EYES = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 4,
    "patch_size": 2,
}
QWEN_EYES = {"depth": 1, "hidden_size": 8, "num_heads": 2, "patch_size": 2, "spatial_merge_size": 1, "temporal_patch_size": 1}
ROPE = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 0], "rope_theta": 10000.0}
IDS = {"image_token_id": 6, "video_token_id": 7, "vision_start_token_id": 8, "vision_end_token_id": 9}


def models(library: Any) -> dict[str, Any]:
    """Return a model of each kind."""
    rope = {"rope_scaling": dict(ROPE), "rope_parameters": dict(ROPE)}
    clip = library.CLIPVisionConfig(**EYES, projection_dim=8)
    seeing = {
        **QWEN_EYES,
        "intermediate_size": 8,
        "out_hidden_size": 8,
        "num_position_embeddings": 4,
        "deepstack_visual_indexes": [0],
    }
    configs = {
        "mixtral": library.MixtralConfig(**{**TEXT, **EXPERTS}),
        "gpt_oss": library.GptOssConfig(**{**TEXT, **EXPERTS}, sliding_window=4),
        "llava": library.LlavaConfig(vision_config=clip, text_config=library.LlamaConfig(**TEXT), image_token_index=6),
        "qwen2_vl": library.Qwen2VLConfig(
            text_config={**TEXT, **rope}, vision_config={**QWEN_EYES, "embed_dim": 8, "mlp_ratio": 1}, **IDS
        ),
        "qwen3_vl_moe": library.Qwen3VLMoeConfig(text_config={**TEXT, **EXPERTS, **rope}, vision_config=seeing, **IDS),
    }
    kinds = {"mixtral": "MixtralForCausalLM", "gpt_oss": "GptOssForCausalLM", "llava": "LlavaForConditionalGeneration"}
    kinds |= {"qwen2_vl": "Qwen2VLForConditionalGeneration", "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration"}
    return {name: getattr(library, kinds[name])(config) for name, config in configs.items()}


def write_4() -> None:
    """Write what transformers 4 writes."""
    import torch
    import transformers

    torch.manual_seed(0)
    for name, model in models(transformers).items():
        for each in model.parameters():
            torch.nn.init.normal_(each, std=0.1)
        kept(model, HERE / name / "4")


def kept(model: Any, folder: Path) -> None:
    """Save a model, and of the files beside only the config."""
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def write_5() -> None:
    """Write what transformers 5 makes of it in memory, and what it writes of that."""
    import torch
    import transformers
    from safetensors.torch import save_file

    for name, model in models(transformers).items():
        loaded, told = type(model).from_pretrained(HERE / name / "4", output_loading_info=True)
        assert not [*told["missing_keys"], *told["unexpected_keys"]]
        tied = {key for key in loaded.all_tied_weights_keys or () if loaded.config.tie_word_embeddings}
        inside = {key: value.clone() for key, value in loaded.state_dict().items() if key not in tied}
        (HERE / name / "memory").mkdir(parents=True, exist_ok=True)
        save_file(inside, HERE / name / "memory" / "model.safetensors", {"format": "pt"})
        model.load_state_dict(inside, strict=not tied)
        kept(model, HERE / name / "5")
        shutil.copy(HERE / name / "5" / "config.json", HERE / name / "memory")
        if name == "gpt_oss":
            logits = model.eval()(torch.tensor([[3, 4, 5]])).logits.tolist()
            (HERE / name / "logits.json").write_text(json.dumps(logits))


def write_mlx() -> None:
    """Write what mlx-lm makes of it; its GPT-OSS is filled, and asked for logits, since it converts codes alone."""
    import mlx.core as mx
    from mlx_lm.models import gpt_oss
    from mlx_lm.utils import load_model, save_model

    mixtral, _ = load_model(HERE / "mixtral" / "5")
    oss = gpt_oss.Model(gpt_oss.ModelArgs.from_dict(json.loads((HERE / "gpt_oss" / "5" / "config.json").read_text())))
    stored = mx.load(str(HERE / "gpt_oss" / "5" / "model.safetensors"))
    oss.load_weights([pair for name, value in stored.items() for pair in of_experts(name, value)])
    logits = json.loads((HERE / "gpt_oss" / "logits.json").read_text())
    assert mx.allclose(oss(mx.array([[3, 4, 5]])), mx.array(logits), atol=1e-4)
    for name, model in (("mixtral", mixtral), ("gpt_oss", oss)):
        save_model(HERE / name / "mlx", model)
        shutil.copy(HERE / name / "5" / "config.json", HERE / name / "mlx")
        (HERE / name / "mlx" / "model.safetensors.index.json").unlink(missing_ok=True)
    (HERE / "gpt_oss" / "logits.json").unlink()


def of_experts(name: str, value: Any) -> list[tuple[str, Any]]:
    """Return mlx-lm's tensors of a stack of GPT-OSS's experts, the tensor itself of others."""
    if name.endswith("experts.gate_up_proj"):
        return [
            (name.replace("gate_up", part) + ".weight", value[..., n::2].swapaxes(1, 2))
            for n, part in enumerate(("gate", "up"))
        ]
    if name.endswith("gate_up_proj_bias"):
        return [
            (name.replace("gate_up_proj_bias", f"{part}_proj.bias"), value[..., n::2]) for n, part in enumerate(("gate", "up"))
        ]
    if name.endswith("experts.down_proj"):
        return [(f"{name}.weight", value.swapaxes(1, 2))]
    return [(name.replace("experts.down_proj_bias", "experts.down_proj.bias"), value)]


if __name__ == "__main__":
    {"4": write_4, "5": write_5, "mlx": write_mlx}[sys.argv[1]]()
