"""Twelve architectures, tiny and random, as the transformers that runs this builds and writes them: 4.57 or 5."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers as T

TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EYES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
QWEN_EYES = {"depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
QWEN_IDS = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
MROPE = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


def mixtral() -> Any:
    return T.MixtralForCausalLM(T.MixtralConfig(**TEXT, num_local_experts=4, num_experts_per_tok=2))


def qwen3_moe() -> Any:
    config = T.Qwen3MoeConfig(**TEXT, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
    return T.Qwen3MoeForCausalLM(config)


def gpt_oss() -> Any:
    kinds = ["sliding_attention", "full_attention"]
    config = T.GptOssConfig(**TEXT, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=8, layer_types=kinds)
    return T.GptOssForCausalLM(config)


def deepseek_v3() -> Any:
    heads = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    rest = {**TEXT, "num_key_value_heads": 4}
    return T.DeepseekV3ForCausalLM(T.DeepseekV3Config(**rest, **heads, **experts, first_k_dense_replace=1))


def llama4() -> Any:
    text = {**TEXT, "head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 4, "num_experts_per_tok": 1}
    eyes = {**EYES, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32, "pixel_shuffle_ratio": 0.5}
    eyes |= {"intermediate_size": 128, "image_size": 16, "patch_size": 4}
    config = T.Llama4Config(text_config={**text, "interleave_moe_layer_step": 1}, vision_config=eyes, image_token_index=60)
    return T.Llama4ForConditionalGeneration(config)


def qwen2_vl() -> Any:
    eyes = {**QWEN_EYES, "embed_dim": 32, "mlp_ratio": 2}
    text = {**TEXT, "rope_scaling": dict(MROPE), "rope_parameters": dict(MROPE)}
    return T.Qwen2VLForConditionalGeneration(T.Qwen2VLConfig(text_config=text, vision_config=eyes, **QWEN_IDS))


def qwen3_vl() -> Any:
    eyes = {**QWEN_EYES, "intermediate_size": 48, "out_hidden_size": 32, "num_position_embeddings": 16}
    eyes |= {"deepstack_visual_indexes": [0]}
    text = {**TEXT, "head_dim": 8, "rope_scaling": dict(MROPE), "rope_parameters": dict(MROPE)}
    return T.Qwen3VLForConditionalGeneration(T.Qwen3VLConfig(text_config=text, vision_config=eyes, **QWEN_IDS))


def llava() -> Any:
    eyes = T.CLIPVisionConfig(**EYES, projection_dim=16)
    config = T.LlavaConfig(vision_config=eyes, text_config=T.LlamaConfig(**TEXT), image_token_index=60)
    return T.LlavaForConditionalGeneration(config)


def gemma3() -> Any:
    text = {**TEXT, "head_dim": 8, "sliding_window": 8}
    config = T.Gemma3Config(text_config=text, vision_config=EYES, mm_tokens_per_image=4, image_token_index=60)
    return T.Gemma3ForConditionalGeneration(config)


def idefics3() -> Any:
    text = T.LlamaConfig(**TEXT)
    config = T.Idefics3Config(text_config=text, vision_config=EYES, image_token_id=60, scale_factor=2, pad_token_id=0)
    return T.Idefics3ForConditionalGeneration(config)


def t5gemma() -> Any:
    part = {**TEXT, "head_dim": 8, "sliding_window": 8}
    return T.T5GemmaForConditionalGeneration(T.T5GemmaConfig(encoder=dict(part), decoder=dict(part), vocab_size=64))


def whisper() -> Any:
    sizes = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    }
    sizes |= {
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "num_mel_bins": 8,
        "max_source_positions": 16,
        "max_target_positions": 16,
    }
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 3}
    return T.WhisperForConditionalGeneration(T.WhisperConfig(vocab_size=64, **sizes, **ids))


MAKERS = {
    each.__name__: each
    for each in (
        mixtral,
        qwen3_moe,
        gpt_oss,
        deepseek_v3,
        llama4,
        qwen2_vl,
        qwen3_vl,
        llava,
        gemma3,
        idefics3,
        t5gemma,
        whisper,
    )
}


def make(name: str, seed: int) -> Any:
    """Return a model whose every weight is random, so that no two are equal and none stays at its initial value."""
    model = MAKERS[name]()
    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=numbers) * 0.1)
    return model.eval()


if __name__ == "__main__":
    home, seed = Path(sys.argv[1]), int(sys.argv[2])
    for name in sys.argv[3:] or MAKERS:
        try:
            model = make(name, seed)
            model.save_pretrained(home / name)
        except Exception as error:
            print(name, "cannot be made:", type(error).__name__, str(error)[:200])
            continue
        if T.__version__ >= "5":
            from safetensors.torch import save_model

            (home / f"{name}-memory").mkdir(parents=True, exist_ok=True)
            save_model(model, str(home / f"{name}-memory" / "model.safetensors"))
            model.config.save_pretrained(home / f"{name}-memory")
