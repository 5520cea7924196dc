"""Makes the policies of this folder with TRL's SFTTrainer and RLOOTrainer, and what transformers says of them.

Run it with TRL 1.16.0 and transformers 5.23.0, from anywhere: `python tests/data/trl_policies/make.py`. `sft` is a Qwen2 of one
layer that learned chats in ChatML, `a` and `b` started from it and learned a reward. Each folder holds what
`trainer.save_model` wrote (without training_args.bin) and `said.json`: for every prompt its ids, the greedy completion of
transformers' own `generate`, and that completion's log-probability by a plain forward pass of one text, in float32.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer

HERE = Path(__file__).parent
WORDS = ["user", "assistant", "what", "is", "two", "plus", "three", "four", "five", "yes", "no", "gold", "and", "more", "less"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MOST = 12


def tokenizer() -> Any:
    """Return a byte-level tokenizer whose EOS, as that of a base model, is not what ends a turn."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted("abcdefghijklmnopqrstuvwxyz?ĠĊ")
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator([" ".join(WORDS), *(f" {word}" for word in WORDS)] * 4, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    made.chat_template = CHATML
    return made


def chats(count: int, seed: int) -> list[list[dict[str, str]]]:
    draw = random.Random(seed)
    asked = (" ".join(draw.choices(WORDS[2:], k=draw.randint(1, 5))) + "?" for _ in range(count))
    return [
        [{"role": "user", "content": each}, {"role": "assistant", "content": " ".join(draw.choices(WORDS[8:], k=3))}]
        for each in asked
    ]


def gold(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    return [float(each[0]["content"].count("gold")) for each in completions]


def less(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    return [-float(len(each[0]["content"])) for each in completions]


def say(folder: Path) -> None:
    """Write what transformers says of a policy that it loads from its folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    own = AutoTokenizer.from_pretrained(folder)
    rows: list[dict[str, Any]] = []
    for chat in chats(12, seed=7):
        ids = own.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
        with torch.no_grad():
            prompt = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
            whole = model.generate(**prompt, do_sample=False, max_new_tokens=MOST)
            said = whole[0, len(ids) :]
            spoken = model(whole).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        total = float(spoken.gather(1, said[:, None]).sum())
        rows.append({"prompt": chat[:1], "ids": ids, "completion": said.tolist(), "log_probability": total})
    (folder / "said.json").write_text(json.dumps(rows) + "\n")


def keep(trainer: Any, name: str) -> Path:
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    trainer.save_model(str(target))
    (target / "training_args.bin").unlink(missing_ok=True)
    say(target)
    return target


def main() -> None:
    torch.manual_seed(0)
    shared: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "bf16": False, "logging_steps": 50}
    own = tokenizer()
    config = Qwen2Config(
        vocab_size=len(own),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
        bos_token_id=None,
    )
    with tempfile.TemporaryDirectory() as place:
        how = SFTConfig(
            place, max_steps=80, learning_rate=1e-2, eos_token="<|im_end|>", per_device_train_batch_size=8, **shared
        )
        data = Dataset.from_list([{"messages": chat} for chat in chats(200, seed=0)])
        trainer = SFTTrainer(Qwen2ForCausalLM(config), how, train_dataset=data, processing_class=own)
        trainer.train()
        sft = keep(trainer, "sft")
        for seed, (name, reward) in enumerate({"a": gold, "b": less}.items()):
            how = RLOOConfig(
                place,
                max_steps=12,
                learning_rate=5e-3,
                num_generations=4,
                per_device_train_batch_size=16,
                max_completion_length=MOST,
                beta=0.05,
                seed=seed,
                **shared,
            )
            prompts = Dataset.from_list([{"prompt": chat[:1]} for chat in chats(64, seed=1)])
            made = RLOOTrainer(str(sft), reward, how, train_dataset=prompts)
            made.train()
            keep(made, name)


if __name__ == "__main__":
    main()
