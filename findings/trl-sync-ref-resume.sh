#!/usr/bin/env bash
# With sync_ref_model, a run that is resumed begins again with the reference model that the first run began with.
#
# trl 1.16.0. SyncRefModelCallback moves the reference model towards the policy (`ref <- (1 - alpha) ref + alpha policy`), and nothing saves it:
# a checkpoint of the trainer holds the policy, its optimiser and random numbers. The trainer that resumes loads the reference model from
# where the policy was loaded from, so what it had followed is lost, and the loss of the steps after it is another. Nothing is said.
#
# Seen on 2026-12-01, largest difference of a weight of the reference model: from the init's, when step 2 is done, and where it stands as the
# run resumes; from the uninterrupted run's, when step 4 is done. DPO: 7e-02, 0, 4e-02; RLOO: 7e-02, 0, 1e-01.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 trl==1.16.0 accelerate==1.15.0
"$folder/venv/bin/python" -W ignore - "$folder/run" <<'PYTHON'
import sys
import datasets, torch, transformers, trl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

datasets.disable_progress_bars()
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
home = sys.argv[1]
words = {word: place for place, word in enumerate(["[UNK]", "[EOS]", "[PAD]", "the", "cat", "sat", "dog"])}
plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]", eos_token="[EOS]", pad_token="[PAD]")
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=7, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, eos_token_id=1, pad_token_id=2))
init = {name: each.clone() for name, each in model.state_dict().items()}
model.save_pretrained(f"{home}/model")
tokenizer.save_pretrained(f"{home}/model")

def cats(completions, **_):
    return [float(each.count("cat")) for each in completions]

SHARED = dict(report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, max_steps=4, save_steps=2, learning_rate=0.1,
              lr_scheduler_type="constant", sync_ref_model=True, ref_model_sync_steps=1, ref_model_mixup_alpha=0.25)
def dpo(name):
    pairs = datasets.Dataset.from_dict(dict(prompt=["the"] * 32, chosen=[" cat sat"] * 32, rejected=[" dog"] * 32))
    return trl.DPOTrainer(f"{home}/model", args=trl.DPOConfig(f"{home}/{name}", **SHARED), train_dataset=pairs, processing_class=tokenizer)

def rloo(name):
    prompts = datasets.Dataset.from_dict(dict(prompt=["the", "the cat"] * 16))
    arguments = trl.RLOOConfig(f"{home}/{name}", num_generations=2, max_completion_length=4, beta=0.1, **SHARED)
    return trl.RLOOTrainer(f"{home}/model", cats, args=arguments, train_dataset=prompts, processing_class=tokenizer)

class Watch(TrainerCallback):
    def __init__(self, trainer):
        self.trainer, self.seen = trainer, {}
    def on_train_begin(self, args, state, control, **_):
        self.on_step_end(args, state, control)
    def on_step_end(self, args, state, control, **_):
        self.seen[state.global_step] = {name: each.clone() for name, each in self.trainer.ref_model.state_dict().items()}

def apart(one, other):
    return max((each - other[name]).abs().max().item() for name, each in one.items())

def train(trainer, resume=None):
    watch = Watch(trainer)
    trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=resume)
    return watch.seen

print("trl", trl.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
for make in (dpo, rloo):
    name = make.__name__
    whole = train(make(name))
    resumed = train(make(name), f"{home}/{name}/checkpoint-2")
    told = [apart(whole[2], init), apart(resumed[2], init), apart(whole[4], resumed[4])]
    print(name, ", ".join(f"{each:.0e}" for each in told))
    assert told[0] > 0.01 and told[1] == 0 and told[2] > 0.01
PYTHON
