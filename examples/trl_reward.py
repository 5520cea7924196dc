"""One reward model by TRL's RewardTrainer: a run of `recipes/warm-trl.yaml`. A killed run goes on from its last checkpoint."""

import argparse

from datasets import load_dataset  # pyright: ignore[reportMissingImports]
from transformers.trainer_utils import get_last_checkpoint
from trl import RewardConfig, RewardTrainer  # pyright: ignore[reportMissingImports]  (it runs where TRL is)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--init", required=True, help="a model with a reward head, the same for every run")
parser.add_argument("--output", required=True)
parser.add_argument("--data", required=True, help="rows of prompt, chosen and rejected")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--lr", type=float, default=1e-5)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--save-steps", type=int, default=100)
parser.add_argument("--batch-size", type=int, default=8)
given = parser.parse_args()

settings = RewardConfig(
    output_dir=given.output,
    seed=given.seed,  # of dropout and of the order of the data
    learning_rate=given.lr,
    max_steps=given.steps,
    per_device_train_batch_size=given.batch_size,
    save_steps=given.save_steps,
    save_total_limit=2,
    logging_steps=min(10, given.save_steps),
    bf16=False,
    gradient_checkpointing=False,
    disable_tqdm=True,
)
data = load_dataset("json", data_files=given.data, split="train")
trainer = RewardTrainer(model=given.init, args=settings, train_dataset=data)
trainer.train(resume_from_checkpoint=get_last_checkpoint(given.output))
