"""One policy by TRL's RLOOTrainer: a run of `recipes/warp-trl.yaml`. A killed run goes on from its last checkpoint."""

import argparse

from datasets import load_dataset  # pyright: ignore[reportMissingImports]
from transformers.trainer_utils import get_last_checkpoint
from trl import RLOOConfig, RLOOTrainer  # pyright: ignore[reportMissingImports]  (it runs where TRL is)

from warmkit.trl import EMAAnchor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--init", required=True, help="the policy to start from, where the anchor of the KL begins too")
parser.add_argument("--output", required=True)
parser.add_argument("--reward", required=True, help="a reward model")
parser.add_argument("--data", required=True, help="rows of prompt")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--lr", type=float, default=1e-6)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--save-steps", type=int, default=100)
parser.add_argument("--batch-size", type=int, default=8, help="completions")
parser.add_argument("--max-new-tokens", type=int, default=64)
given = parser.parse_args()

settings = RLOOConfig(
    output_dir=given.output,
    seed=given.seed,  # of sampling and of the order of the prompts
    learning_rate=given.lr,
    max_steps=given.steps,
    per_device_train_batch_size=given.batch_size,
    num_generations=2,
    max_completion_length=given.max_new_tokens,
    temperature=0.9,
    beta=0.1,
    save_steps=given.save_steps,
    save_total_limit=2,
    logging_steps=1,
    bf16=False,
    gradient_checkpointing=False,
    disable_tqdm=True,
)
data = load_dataset("json", data_files=given.data, split="train")
trainer = RLOOTrainer(model=given.init, reward_funcs=given.reward, args=settings, train_dataset=data)
trainer.add_callback(EMAAnchor(trainer, mu=0.01))  # WARP's; TRL's own sync_ref_model is lost when a run is resumed
trainer.train(resume_from_checkpoint=get_last_checkpoint(given.output))
