"""Train one reward model: probe the head, fine-tune everything, write what transformers loads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from warmkit.common.display import Displayed
from warmkit.common.progress import Advance, progress
from warmkit.common.records import dict_of, having, is_natural, is_number
from warmkit.data.corruption import corrupt
from warmkit.data.preferences import Pairs, read_pairs
from warmkit.errors import DataError, MismatchError, UnsupportedError
from warmkit.evaluation.accuracy import pairwise_accuracy, report
from warmkit.evaluation.comparisons import Comparisons, encode_pairs, same_after_encoding, score
from warmkit.modeling.checkpointing import recompute_activations
from warmkit.modeling.precision import autocast
from warmkit.modeling.quiet import evaluating
from warmkit.modeling.reward_model import NO_PADDING, RewardModel, load_reward_model, pooled_around, trained_head
from warmkit.modeling.saving import SCALAR, save_model
from warmkit.training.distributed import agreed, group
from warmkit.training.loop import begin, train
from warmkit.training.lora import add_adapters, merged
from warmkit.training.losses import bradley_terry
from warmkit.training.probe import train_probe
from warmkit.training.recipe_sections import DataSection, ModelSection, RewardModelRecipe
from warmkit.training.run import RunDirectory
from warmkit.training.sharding import check_shards, put_together, shard, spread, whole_weights
from warmkit.training.telling import Tell, tell_texts

ALL_TOKENS = 1 << 40  # a batch that learns is split for padding alone: its activations are kept in any case
SUMMARY = {
    "steps": is_natural,
    "evaluation": dict_of(having(pairs=is_natural, accuracy=is_number, low=is_number, high=is_number, loss=is_number)),
}
"""What `summary.json` holds at least."""
MOST_PARTS = 3  # each part brings a gradient of the whole embedding, which costs more than some padding


@dataclass(frozen=True, repr=False)
class RewardModelResult(Displayed):
    """Result of training a reward model.

    Attributes:
        path: The model's directory.
        summary: What `summary.json` holds.
        resumed: Steps that an earlier, killed run had done; all of them where it was finished before.
    """

    path: Path
    summary: dict[str, Any]
    resumed: int

    def _rows(self) -> Sequence[Mapping[str, object]]:
        return [{"data": name, **found} for name, found in self.summary["evaluation"].items()]


class RewardModelTask:
    """Fine-tuning on preferences, for the training loop."""

    section = "rm"

    def __init__(self, reward_model: RewardModel, data: dict[str, Comparisons], center: float = 0.0) -> None:
        self.reward_model, self.data, self.center = reward_model, data, center
        self.train_set, self.examples = data["train"], len(data["train"])

    @property
    def model(self) -> Any:
        return self.reward_model.model

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the Bradley-Terry loss of some pairs, and how many of them are ranked right."""
        chosen = [self.train_set.chosen[row] for row in rows]
        rejected = [self.train_set.rejected[row] for row in rows]
        parts = 1 if group().sharded else MOST_PARTS  # every process must go through a sharded model as often
        rewards = self.reward_model.forward([*chosen, *rejected], most=ALL_TOKENS, least=-(-2 * len(rows) // parts))
        first, second = rewards[: len(rows)], rewards[len(rows) :]
        margins = (first - second).detach()
        wanted = [self.train_set.pairs[row].margin for row in rows]
        margin = first.new_tensor(wanted) if any(wanted) else None
        return bradley_terry(first, second, margin, self.center), {
            "accuracy": float((margins >= 0).sum()),
            "margin": float(margins.sum()),
        }

    def weight(self, rows: Sequence[int]) -> float:
        return len(rows)

    def places(self, rows: Sequence[int]) -> str:
        return ", ".join(self.train_set.pairs[row].where or f"pair {row}" for row in rows[:4]) + (
            ", ..." if len(rows) > 4 else ""
        )

    def evaluate(self) -> dict[str, float]:
        if "validation" not in self.data:
            return {}
        return {"validation_accuracy": pairwise_accuracy(score(self.reward_model, self.data["validation"]))}

    def save(self, run: RunDirectory, name: str) -> None:
        save_reward_model(self.reward_model, run.path / name)


def train_reward_model(
    recipe: RewardModelRecipe, *, force: bool = False, advance: Advance | bool | None = None, tell: Tell | None = None
) -> RewardModelResult:
    """Train a reward model, or go on where a killed run stopped; a finished run is returned as it is.

    Args:
        recipe: Of the run.
        force: Delete a run of another recipe that lies there.
        advance: Called with the steps since the last call and the total; True draws a bar, False none; by default there is
            one in a notebook.
        tell: Called with a line about data that may be meant otherwise.

    Raises:
        DataError: If a row of the data cannot be used.
        UnsupportedError: If the checkpoint or its tokenizer cannot become a reward model.
        TrainingError: If the loss is not finite, or memory runs out.
        ChangedError: If the directory holds a run that began with other weights.
        FormatError: If a file of it is of another form.
        OutputError: If it holds something else.
        UsageError: If a tracker is not installed.

    Source: WARM (Ramé et al., 2024), sections 2.1 and 3.1, appendix C.3.
    """
    recipe, run, summary = begin(recipe, "rm", SUMMARY, force)
    if summary is not None:
        return RewardModelResult(run.model, summary, int(summary["steps"]))
    with agreed():
        reward_model = open_for_training(recipe.model, recipe.rm.dropout)
        data = load_comparisons(recipe.data, recipe.model, reward_model, tell)
        check_shards(recipe.rm, "rm", recipe.lora)
        shard(reward_model.model)
        probe = set_head(reward_model, recipe, data)
        prepare(reward_model, recipe)
    task = RewardModelTask(reward_model, data, recipe.rm.center)
    with progress(advance, "training", "steps") as tick:
        outcome = train(task, recipe.rm, run, tick)
    reward_model.model = merged(reward_model.model)
    save_reward_model(reward_model, run.model)
    summary = {
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "probe": probe,
        "data": {name: describe(each) for name, each in data.items()},
        "evaluation": evaluation(reward_model, data, recipe.rm.precision),
        "last": outcome.last,
    }
    return RewardModelResult(run.model, run.finish(summary), outcome.resumed)


def evaluation(reward_model: RewardModel, data: dict[str, Comparisons], precision: str) -> dict[str, Any]:
    """Report on every data set, in the precision that the model was trained in."""
    with autocast(precision, reward_model.device):
        return {name: report(score(reward_model, each), each.answer_lengths) for name, each in split(data).items()}


def open_for_training(section: ModelSection, dropout: float | None = None) -> RewardModel:
    """Load the checkpoint that a recipe names as a reward model."""
    how: dict[str, Any] = {"max_length": section.max_length, "pad_token": section.pad_token, "dropout": dropout}
    return load_reward_model(section.path, device=group().device, **how)


def load_comparisons(
    section: DataSection, model: ModelSection, reward_model: RewardModel, tell: Tell | None = None
) -> dict[str, Comparisons]:
    """Read and encode the data sets of a recipe: `train`, and `validation` and `ood` where it names them."""
    pairs = {"train": training_pairs(section)}
    for name, source in (("validation", section.validation), ("ood", section.ood)):
        if source is not None:
            pairs[name] = pairs_of(section, source)
    tell_texts(tell, [(pair.prompt, pair.chosen) for pair in pairs["train"]], reward_model.encoder, model.path, section.chat)
    if tell is not None and (count := sum(bool(pair.margin) for pair in pairs["train"])):
        tell(
            f"{count} of {len(pairs['train'])} pairs of data.train have a margin: the loss wants the chosen answer ahead by it"
        )
    data = {name: encode_pairs(each, reward_model.encoder, model.overlong) for name, each in pairs.items()}
    if same := same_after_encoding(data["train"]):
        raise DataError(
            f"{section.train}: {same} pairs are the same to the model, after truncation to {reward_model.encoder.max_length} "
            "tokens; raise model.max_length, or take these rows out"
        )
    return data


def pairs_of(section: DataSection, source: str) -> Pairs:
    """Read one of the files of a recipe, as the recipe says."""
    return read_pairs(source, chat=bool(section.chat), equal_pairs=section.equal_pairs or "refuse")


def training_pairs(section: DataSection) -> Pairs:
    """Read the training pairs, with the share of swapped labels that the recipe asks for."""
    pairs = pairs_of(section, section.train)
    if not section.corrupt:
        return pairs
    return Pairs(corrupt(pairs, section.corrupt, section.corrupt_seed), pairs.skipped)


def split(data: dict[str, Comparisons]) -> dict[str, Comparisons]:
    """Return the data sets to evaluate on: the training set as `train clean` and `train corrupt` where labels were swapped."""
    result: dict[str, Comparisons] = {}
    for name, each in data.items():
        parts = each.subsets() if name == "train" else {}
        if "corrupt" in parts:
            result |= {f"{name} {part}": each.only(parts[part]) for part in ("clean", "corrupt") if part in parts}
        else:
            result[name] = each
    return result


def describe(comparisons: Comparisons) -> dict[str, int]:
    """Count the pairs of a data set, those that were truncated, whose labels were swapped, and that were left out as equal."""
    swapped, skipped = sum(pair.corrupt for pair in comparisons.pairs), comparisons.skipped
    counts = {"pairs": len(comparisons), "truncated": comparisons.truncated, "corrupt": swapped}
    return {**counts, "skipped": skipped} if skipped else counts


def set_head(reward_model: RewardModel, recipe: RewardModelRecipe, data: dict[str, Comparisons]) -> dict[str, Any] | None:
    """Give the model the head of `model.head`, or a probe where it has none yet; say how good the probe is."""
    if recipe.model.head is not None:
        copy_head(recipe.model.head, reward_model)
        return None
    if bool(put_together(reward_model.head.weight).any()):
        return None
    return probe_head(reward_model, recipe.probe.l2, data)


def probe_head(reward_model: RewardModel, l2: float, data: dict[str, Comparisons]) -> dict[str, Any]:
    """Train the head on frozen features of the training set; return its accuracies."""
    train_set = data["train"]
    features = reward_model.features([*train_set.chosen, *train_set.rejected])
    chosen, rejected = features[: len(train_set)], features[len(train_set) :]
    weight = train_probe(chosen, rejected, l2)
    with torch.no_grad():
        reward_model.head.weight.copy_(spread(weight, reward_model.head.weight))
    return {"train_accuracy": float(((chosen - rejected) @ weight[0] >= 0).double().mean())}


def copy_head(source: str, target: RewardModel) -> None:
    """Copy the head of a trained reward model.

    Raises:
        MismatchError: If its features have another width.
        UnsupportedError: If it has no head.
    """
    weight = trained_head(source)
    if weight is None:
        raise UnsupportedError(f"model.head: {source} has no scalar head; give a trained reward model, or leave the key out")
    if weight.shape != target.head.weight.shape:
        raise MismatchError(
            f"{source}: its head reads {weight.shape[1]} features, and {target.path} has {target.head.in_features}"
        )
    with torch.no_grad():
        target.head.weight.copy_(spread(weight.load(), target.head.weight))


def prepare(reward_model: RewardModel, recipe: RewardModelRecipe) -> None:
    """Add adapters and checkpointing where the recipe asks for them."""
    if recipe.lora is not None:
        reward_model.model = add_adapters(reward_model.model, recipe.lora, "SEQ_CLS", recipe.rm.seed)
    if recipe.rm.gradient_checkpointing:
        reward_model.model.config.use_cache = False
        recompute_activations(reward_model.model)


def save_reward_model(reward_model: RewardModel, target: Path) -> None:
    """Write a reward model that `AutoModelForSequenceClassification` loads with the same scores; every process calls it."""
    model = reward_model.model
    weights = whole_weights(model)
    if not group().first:
        return
    if hasattr(model, "merge_and_unload"):
        model = merged(copy.deepcopy(model))
    encoder, pad_id = reward_model.encoder, pooled_around(model.config)
    with evaluating(model):
        save_model(
            model,
            reward_model.path,
            target,
            weights=weights,
            config={**SCALAR, "pad_token_id": None if pad_id == NO_PADDING else pad_id},
            tokenizer={"pad_token": encoder.pad_token, "model_max_length": encoder.max_length},
        )
