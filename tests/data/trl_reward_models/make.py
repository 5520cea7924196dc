"""Makes the reward models of this folder with TRL's RewardTrainer, and the scores that they give there.

Run it with TRL 1.16.0, transformers 5.23.0 and peft 0.21.2, from anywhere: `python tests/data/trl_reward_models/make.py`, for
some with their names behind. Each model has its folder: what `trainer.save_model` wrote (without training_args.bin),
`rows.jsonl` with the pairs that it learned, and `scores.json`, the ids and scores of both sides by the trainer's own collator
and model. Before they are written, they are compared with those of `AutoModelForSequenceClassification.from_pretrained` for
texts one by one.

Those of `ON_A_BASE` start from language models that are kept here, `*-base`: the head of an adapter is in the adapter alone.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from trl import RewardConfig, RewardTrainer  # pyright: ignore[reportMissingImports]  (it runs where TRL is)

HERE = Path(__file__).parent
WORDS = [
    "user",
    "assistant",
    "system",
    "model",
    "tool",
    "what",
    "is",
    "two",
    "plus",
    "three",
    "four",
    "five",
    "yes",
    "no",
    "gold",
]
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
CHATML = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ 'tool ' + tool['function']['name'] + '\n' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if polite is defined and polite and m['role'] == 'user' %}{{ 'yes ' }}{% endif %}"
    "{% if m['content'] %}{{ m['content'] }}{% endif %}"
    "{% for call in m['tool_calls'] or [] %}{{ 'tool ' + call['function']['name'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content']|trim"
    " + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content']|trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def tokenizer(special: list[str], template: str | None = None, frame: str | None = None, **named: str) -> Any:
    """Return a tokenizer of words; `frame` is what it puts around a text."""
    vocabulary = {word: place for place, word in enumerate([*special, "<unk>", "\n", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    if frame is not None:
        used = [(word, vocabulary[word]) for word in frame.split() if word in vocabulary]
        inner.post_processor = processors.TemplateProcessing(single=frame, pair=f"{frame} $B", special_tokens=used)
    return finished(inner, special, template, unk_token="<unk>", **named)


def byte_tokenizer(special: list[str], template: str | None = None, **named: str) -> Any:
    """Return a byte-level tokenizer, which transformers 5 makes of a Qwen2's, whatever its file says."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted({*"".join(WORDS), "Ġ", "Ċ"})
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator([" ".join(WORDS)] * 2, trainer)
    return finished(inner, special, template, **named)


def finished(inner: Tokenizer, special: list[str], template: str | None, **named: str) -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **named)
    others = [each for each in special if each not in named.values()]
    if others:
        made.add_special_tokens({"additional_special_tokens": others})
    made.chat_template = template
    return made


def language_model(kind: str, tokenizer: Any, tied: bool = False) -> Any:
    torch.manual_seed(0)
    kinds: dict[str, tuple[Any, Any]] = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "gemma": (GemmaConfig, GemmaForCausalLM),
    }
    config, model = kinds[kind]
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return model(config(vocab_size=len(tokenizer), tie_word_embeddings=tied, **SHAPE, **ids))


def texts(count: int = 12) -> list[dict[str, Any]]:
    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        prompt, one, two = (" ".join(draw.choices(WORDS[5:-1], k=draw.randint(1, 7))) for _ in range(3))
        rows.append({"prompt": prompt, "chosen": f" {one} gold", "rejected": f" {two}"})
    return rows


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def chats() -> list[dict[str, Any]]:
    return [
        {
            "prompt": [turn("user", row["prompt"])],
            "chosen": [turn("assistant", row["chosen"].strip())],
            "rejected": [turn("assistant", row["rejected"].strip())],
        }
        for row in texts()
    ]


def implicit() -> list[dict[str, Any]]:
    """Chats whose prompt is what both conversations share, with tools, calls of them, and arguments of the template."""
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "five", "arguments": {}}}]}
    asked = [call, turn("tool", "five")]
    tools = [{"type": "function", "function": {"name": "five", "description": "", "parameters": {}}}]
    return [
        {
            "chosen": row["prompt"] + asked * (place % 4 == 1) + row["chosen"],
            "rejected": row["prompt"] + asked * (place % 4 == 1) + row["rejected"],
            "tools": tools if place % 2 else None,
            "chat_template_kwargs": {"polite": place % 3 == 0},
        }
        for place, row in enumerate(chats())
    ]


LLAMA = {"bos_token": "<s>", "eos_token": "</s>"}
LLAMA_3_TOKENS = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
LLAMA_3_NAMES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_NAMES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
GEMMA_TOKENS = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
GEMMA_NAMES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}

MODELS: dict[str, Any] = {
    # no padding token: TRL pads with EOS
    "llama-texts": lambda: ("llama", tokenizer(["<s>", "</s>"], frame="<s> $A", **LLAMA), texts(), None),
    "llama-chats": lambda: (
        "llama",
        tokenizer(LLAMA_3_TOKENS, LLAMA_3, "<|begin_of_text|> $A", **LLAMA_3_NAMES),
        chats(),
        None,
    ),
    # the tokenizer itself puts EOS, behind the one that TRL appends
    "llama-own-eos": lambda: (
        "llama",
        tokenizer(["<pad>", "<s>", "</s>"], None, "<s> $A </s>", pad_token="<pad>", **LLAMA),
        texts(),
        None,
    ),
    "qwen-chats": lambda: ("qwen2", byte_tokenizer(QWEN, CHATML, **QWEN_NAMES), implicit(), None),
    # padding is EOS, and there is no other token that could be
    "qwen-texts": lambda: (
        "qwen2",
        byte_tokenizer(QWEN, CHATML, eos_token="<|endoftext|>", pad_token="<|endoftext|>"),
        texts(),
        None,
    ),
    "gemma-chats": lambda: ("gemma", tokenizer(GEMMA_TOKENS, GEMMA, "<bos> $A", **GEMMA_NAMES), chats(), None),
    "llama-adapter": lambda: (
        "llama",
        tokenizer(LLAMA_3_TOKENS, LLAMA_3, "<|begin_of_text|> $A", **LLAMA_3_NAMES),
        chats(),
        LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "up_proj"], modules_to_save=["score"], task_type="SEQ_CLS"),
    ),
}


ON_A_BASE: dict[str, Any] = {
    # another run from where llama-chats started
    "llama-chats-2": lambda: ("llama-base", chats(), None, {"seed": 2}),
    # head and template as most have them; two runs on one base
    "llama-lora-1": lambda: ("llama-base", chats(), lora("SEQ_CLS"), {"seed": 1}),
    "llama-lora-2": lambda: ("llama-base", chats(), lora("SEQ_CLS"), {"seed": 2}),
    # no task, and the chat template is the adapter's own; its base ties the head that it has no use for
    "qwen-lora": lambda: ("qwen-base", implicit(), lora(None), {"chat_template_path": CHATML}),
}
BASES: dict[str, Any] = {
    "llama-base": lambda: ("llama", tokenizer(LLAMA_3_TOKENS, LLAMA_3, "<|begin_of_text|> $A", **LLAMA_3_NAMES), False),
    "qwen-base": lambda: ("qwen2", byte_tokenizer(QWEN, None, **QWEN_NAMES), True),
}


def lora(task: str | None) -> LoraConfig:
    targets = ["q_proj", "up_proj"]
    return LoraConfig(r=2, lora_alpha=8, target_modules=targets, modules_to_save=["score"], task_type=task)


def train(init: Path, rows: list[dict[str, Any]], adapter: Any, out: Path, **options: Any) -> Any:
    how = {"max_steps": 30, "per_device_train_batch_size": 4, "learning_rate": 0.02, "lr_scheduler_type": "constant"}
    how |= options
    args = RewardConfig(
        str(out), report_to=[], use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True, logging_steps=30, **how
    )
    trainer = RewardTrainer(str(init), args, train_dataset=Dataset.from_list(rows), peft_config=adapter)
    trainer.train()
    trainer.save_model(str(out))
    return trainer


@torch.no_grad()
def scores(trainer: Any) -> dict[str, Any]:
    """Return ids and scores of all pairs as TRL sees them, in one padded batch."""
    model, examples = trainer.model.eval(), list(trainer.train_dataset)
    batch = trainer.data_collator(examples)
    found = model(**batch).logits.squeeze(-1).tolist()
    return {
        "chosen_ids": [each["chosen_ids"] for each in examples],
        "rejected_ids": [each["rejected_ids"] for each in examples],
        "chosen": found[: len(examples)],
        "rejected": found[len(examples) :],
    }


@torch.no_grad()
def compare(folder: Path, base: Path, expected: dict[str, Any]) -> float:
    """Return how far the scores of texts one by one, by transformers from the folder, are from those of the trainer."""
    adapter = (folder / "adapter_config.json").exists()
    model = AutoModelForSequenceClassification.from_pretrained(base if adapter else folder, num_labels=1)
    if adapter:
        model = PeftModel.from_pretrained(model, folder)
        model.config.pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
    model.eval()
    return max(
        abs(float(model(torch.tensor([ids])).logits) - score)
        for side in ("chosen", "rejected")
        for ids, score in zip(expected[f"{side}_ids"], expected[side])
    )


def make(name: str, scratch: Path) -> None:
    kind, own, rows, adapter = MODELS[name]()
    init, folder = scratch / name, HERE / name
    language_model(kind, own).save_pretrained(init)
    own.save_pretrained(init)
    shutil.rmtree(folder, ignore_errors=True)
    if adapter is not None:
        base = AutoModelForSequenceClassification.from_pretrained(init, num_labels=1)  # a head, which the adapter replaces
        base.save_pretrained(folder / "base")
        own.save_pretrained(folder / "base")
    trainer = train(init, rows, adapter, folder)
    finish(name, trainer, folder, rows, init, "base")


def make_on_a_base(name: str, scratch: Path) -> None:
    base, rows, adapter, how = ON_A_BASE[name]()
    folder = HERE / name
    make_base(base)
    if "chat_template_path" in how:
        (scratch / "template.jinja").write_text(how["chat_template_path"])
        how["chat_template_path"] = str(scratch / "template.jinja")
    shutil.rmtree(folder, ignore_errors=True)
    trainer = train(HERE / base, rows, adapter, folder, **how)
    finish(name, trainer, folder, rows, HERE / base, f"../{base}")


def make_base(name: str) -> None:
    if not (HERE / name).exists():
        kind, own, tied = BASES[name]()
        language_model(kind, own, tied).save_pretrained(HERE / name)
        own.save_pretrained(HERE / name)


def finish(name: str, trainer: Any, folder: Path, rows: list[dict[str, Any]], init: Path, base: str) -> None:
    (folder / "training_args.bin").unlink()
    (folder / "README.md").unlink(missing_ok=True)
    if (config := folder / "adapter_config.json").exists():
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": base}, indent=2) + "\n")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = scores(trainer)
    print(name, "largest difference to transformers:", compare(folder, init, expected))
    (folder / "scores.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for each in sys.argv[1:] or [*MODELS, *ON_A_BASE]:
            (make if each in MODELS else make_on_a_base)(each, Path(scratch))
