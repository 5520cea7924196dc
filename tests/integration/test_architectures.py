"""Real architectures, small: built with transformers, merged by SLERP, loaded with their class and run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import warmkit
from tests.unit.engine import reference
from warmkit.layouts.groups import group

Inputs = dict[str, torch.Tensor]
WORDS = torch.tensor([[5, 6, 7, 8, 9, 2]])
TEXT: Inputs = {"input_ids": WORDS}
BOTH: Inputs = {"input_ids": WORDS, "decoder_input_ids": WORDS[:, :3]}
PIXELS = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
DECODER = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {**DECODER, "num_experts_per_tok": 2}
SEQUENCES = {"vocab_size": 40, "d_model": 16, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1}
LAYERS = {f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in
          {"layers": 2, "attention_heads": 2, "ffn_dim": 24}.items()}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 16, "patch_size": 8}


@dataclass(frozen=True)
class Case:
    """An architecture.

    Attributes:
        model: The class that loads it.
        config: Makes a small configuration of it.
        inputs: What it is run on.
        holds: A part of the name of a tensor that tells it from the others.
    """

    model: str
    config: Callable[[], Any]
    inputs: Inputs
    holds: str


def of(name: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, name)(**settings)


def llava() -> Any:
    text = transformers.LlamaConfig(**{**DECODER, "vocab_size": 44})
    vision = transformers.CLIPVisionConfig(**VISION)
    return transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=41, image_seq_length=4)


def clip() -> Any:
    text = {**VISION, "vocab_size": 40, "max_position_embeddings": 32, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    return transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)


LLAVA_INPUTS = {"input_ids": torch.tensor([[1, 41, 41, 41, 41, 5, 6]]), "pixel_values": PIXELS}
MAMBA = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "pad_token_id": 0}
WHISPER = {**SEQUENCES, **LAYERS, "num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16, "bos_token_id": 1}
WHISPER_INPUTS = {"input_features": torch.linspace(-1, 1, 8 * 32).reshape(1, 8, 32), "decoder_input_ids": WORDS[:, :3]}
QWEN = {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 12}

CASES = {
    "llama": Case("AutoModelForCausalLM", of("LlamaConfig", **DECODER), TEXT, "model.layers.1.mlp.up_proj"),
    "gemma2, tied": Case("AutoModelForCausalLM", of("Gemma2Config", **DECODER), TEXT, "pre_feedforward_layernorm"),
    "qwen3-moe": Case("AutoModelForCausalLM", of("Qwen3MoeConfig", **QWEN), TEXT, "experts.3.down_proj"),
    "mixtral": Case("AutoModelForCausalLM", of("MixtralConfig", **EXPERTS, num_local_experts=4), TEXT, "experts.3.w1"),
    "gpt2": Case(
        "AutoModelForCausalLM",
        of("GPT2Config", vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2),
        TEXT,
        "h.1.attn.c_attn",
    ),
    "mamba": Case("AutoModelForCausalLM", of("MambaConfig", **MAMBA), TEXT, "mixer.A_log"),
    "bert": Case(
        "AutoModelForSequenceClassification",
        of("BertConfig", **{**VISION, "vocab_size": 40, "max_position_embeddings": 32, "num_labels": 1, "pad_token_id": 0}),
        TEXT,
        "bert.encoder.layer.1.attention",
    ),
    "t5": Case(
        "AutoModelForSeq2SeqLM",
        of("T5Config", **SEQUENCES, d_kv=8, d_ff=24, num_layers=2, num_heads=2),
        BOTH,
        "decoder.block.1.layer.1.EncDecAttention",
    ),
    "bart": Case(
        "AutoModelForSeq2SeqLM",
        of("BartConfig", **SEQUENCES, **LAYERS, max_position_embeddings=32, bos_token_id=1, forced_eos_token_id=2),
        BOTH,
        "decoder.layers.1.encoder_attn",
    ),
    "whisper": Case("AutoModelForSpeechSeq2Seq", of("WhisperConfig", **WHISPER), WHISPER_INPUTS, "encoder.conv1"),
    "clip": Case("AutoModel", clip, {**TEXT, "pixel_values": PIXELS}, "vision_model.encoder.layers.1"),
    "llava": Case("AutoModelForImageTextToText", llava, LLAVA_INPUTS, "multi_modal_projector"),
}


def save(case: Case, folder: Path, seed: int) -> Path:
    """Write the init for seed 0; for others the init plus noise of their own."""
    torch.manual_seed(1)
    model = getattr(transformers, case.model).from_config(case.config())
    own = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters() if seed else ():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=own))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_merge_of_an_architecture_loads_runs_and_is_right(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    paths = [save(case, tmp_path / str(seed), seed) for seed in range(3)]
    init, *models = (load_file(path / "model.safetensors") for path in paths)
    assert any(case.holds in key for key in init), sorted(init)
    result = warmkit.merge(paths[1:], tmp_path / "out", init=paths[0], lambda_=0.4, antiparallel="lerp")

    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert merged.keys() == init.keys()
    groups = group([key for key in init if init[key].is_floating_point()], "layer")
    scalars = {
        each: keys for each, keys in groups.items() if sum(init[key].numel() for key in keys) == 1
    }  # no angle but 0, 180
    vectors = {each: keys for each, keys in groups.items() if each not in scalars}
    exact = reference.merged("slerp", init, models, [0.6, 0.4], 1.0, vectors)
    exact |= reference.merged("lerp", init, models, [0.6, 0.4], 1.0, scalars)
    for key, expected in exact.items():
        found = merged[key].double().numpy().ravel()
        assert np.allclose(found, expected, rtol=3e-7, atol=3e-7), key
    assert result.mean_angle is not None
    assert result.mean_angle > 45  # an arc, and no straight line

    kind = getattr(transformers, case.model)
    loaded, report = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    parents = [kind.from_pretrained(path).eval() for path in paths[1:]]
    with torch.no_grad():
        answers = [model(**case.inputs)[0] for model in (loaded.eval(), *parents)]
    assert torch.isfinite(answers[0]).all()
    assert not any(torch.equal(answers[0], parent) for parent in answers[1:])


def test_experts_alone_are_merged_where_a_pattern_says_so(tmp_path: Path) -> None:
    case = CASES["mixtral"]
    paths = [save(case, tmp_path / str(seed), seed) for seed in range(3)]
    warmkit.merge(paths[1:], tmp_path / "out", init=paths[0], only=["*.experts.*"])
    init, merged = (load_file(path / "model.safetensors") for path in (paths[0], tmp_path / "out"))
    changed = {key for key in init if not torch.equal(init[key], merged[key])}
    assert changed == {key for key in init if ".experts." in key}


@pytest.mark.parametrize("name", ["gemma2, tied", "t5", "bart", "whisper", "bert", "gpt2"])
def test_what_torch_saved_of_a_model_with_tied_weights_merges_like_its_safetensors(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    paths = [save(case, tmp_path / str(seed), seed) for seed in range(2)]
    pickled = tmp_path / "pickled"
    model = getattr(transformers, case.model).from_pretrained(paths[1])
    model.config.save_pretrained(pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    expected = warmkit.liti(paths[1], tmp_path / "expected", init=paths[0], eta=0.5).path
    lone = pickled / "pytorch_model.bin"  # without a config that says what is tied
    for number, (first, second) in enumerate([(pickled, paths[0]), (paths[0], pickled), (paths[0], lone)]):
        out = warmkit.liti(second, tmp_path / f"out-{number}", init=first, eta=0.5, allow_pickle=True).path
        found, straight = (load_file(path / "model.safetensors") for path in (out, expected))
        assert found.keys() == straight.keys()
        assert all(torch.equal(found[key], straight[key]) for key in found)
