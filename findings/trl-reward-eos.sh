#!/usr/bin/env bash
# With the padding token that RewardTrainer takes by default, the reward is not that of the EOS it adds.
#
# trl 1.16.0. RewardTrainer adds the EOS to texts that are not conversations. A tokenizer without a padding token is given the EOS as one, and
# transformers 5.23.0 takes as a text's reward that of the last token that is not padding, by the token and not by the attention mask. So the
# EOS, which the attention mask of the batch counts as text, is passed over: the reward is that of the token before it, and a text that ended
# gets the reward of one that was cut there. With a padding token of its own the reward is that of the EOS. Nothing is said in either case.
# Whoever scores with such a model and another padding token reads another number than the one that was trained.
#
# Seen on 2026-11-29: padding by default, the token before the EOS, and equal to the text without its EOS; [PAD], the EOS, and different.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 trl==1.16.0
"$folder/venv/bin/python" -W ignore - "$folder/trainer" <<'PYTHON'
import sys
import datasets, torch, transformers, trl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

datasets.disable_progress_bars()
words = {word: place for place, word in enumerate(["[UNK]", "[EOS]", "[PAD]", "the", "cat", "sat", "dog"])}
pairs = datasets.Dataset.from_dict({"chosen": ["the cat sat"], "rejected": ["the dog"]})

def rewarded(said, **padding):
    plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]", eos_token="[EOS]", **padding)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(LlamaConfig(
        vocab_size=7, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=1))
    arguments = RewardConfig(sys.argv[1], report_to=[], use_cpu=True, bf16=False, disable_tqdm=True)
    trainer = RewardTrainer(model, arguments, train_dataset=pairs, processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    seen = dict(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    ends = seen["attention_mask"].sum(-1) - 1
    rows = torch.arange(2)
    assert seen["input_ids"][rows, ends].tolist() == [1, 1]  # the mask says that each text ends with its EOS
    model.eval()
    with torch.no_grad():
        reward = model(**seen).logits[:, 0]
        each = model.score(model.model(**seen).last_hidden_state)[..., 0]
        cut = model(input_ids=seen["input_ids"][:1, :3]).logits[0, 0]  # "the cat sat"
    which = [name for name, place in (("the EOS", ends), ("the token before the EOS", ends - 1))
             if torch.allclose(reward, each[rows, place], atol=1e-5)]
    same = torch.allclose(reward[0], cut, atol=1e-5)
    print(f"{said}: padding {trainer.processing_class.pad_token}, the reward of {' and '.join(which)};",
          "equal to" if same else "different from", "that of the text without its EOS")
    return which, same

print("trl", trl.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
assert rewarded("by default") == (["the token before the EOS"], True)
assert rewarded("its own", pad_token="[PAD]") == (["the EOS"], False)
PYTHON
