"""Sections of the training recipes: one dataclass a section, one a recipe.

A key's annotation is its type, its default the default; `recipes.read_recipe` reports what does not fit with file and line.
Paper defaults are those of WARM, appendix C.3, where they transfer to small models; `docs/recipes.md` lists every key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from warmkit.errors import UsageError

Executor = Literal["processes", "ray"]


def number_in(low: float, high: float | None = None, *, default: Any) -> Any:
    """Declare a key whose value, or each of whose values, lies in [low, high]."""
    wanted = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"

    def check(value: Any) -> None:
        for each in value if isinstance(value, list) else [value]:
            if not (low <= each and (high is None or each <= high)):
                raise UsageError(f"expected a number {wanted}, found {each!r}")

    return field(default=default, metadata={"check": check, "range": wanted})


@dataclass(frozen=True)
class ModelSection:
    """`model:`, what is trained.

    Attributes:
        path: The checkpoint to start from.
        head: A trained reward model whose head is taken over; by default a probe is trained.
        max_length: Tokens of prompt and answer together; by default what the model allows.
        overlong: Whether longer texts are truncated or refused.
        pad_token: What to pad with, where the tokenizer has no token of its own for it.
    """

    path: str
    head: str | None = None
    max_length: int | None = number_in(8, default=None)
    overlong: Literal["truncate", "refuse"] = "truncate"
    pad_token: str | None = None


@dataclass(frozen=True)
class DataSection:
    """`data:`, files or `datasets` names.

    Attributes:
        train: What is learned.
        validation: Held out, of the same distribution. `warm` ranks its runs on half of it and measures on the other.
        ood: Held out, of another distribution.
        corrupt: Share of the training pairs whose labels are swapped.
        corrupt_seed: Which ones.
        chat: Make chats of rows that are texts, for the model's chat template; by default a text stays one.
        equal_pairs: Whether pairs of two equal answers are refused, the default, or left out and counted.
    """

    train: str
    validation: str | None = None
    ood: str | None = None
    corrupt: float = number_in(0, 1, default=0.0)
    corrupt_seed: int = number_in(0, default=0)
    chat: bool | None = None
    equal_pairs: Literal["refuse", "skip"] | None = None


@dataclass(frozen=True)
class LoraSection:
    """`lora:`, low-rank adapters instead of all weights; merged into the weights at the end.

    Attributes:
        rank: Of the adapters.
        alpha: Their scale is alpha / rank.
        dropout: On their input.
        targets: Names of the adapted layers; by default all linear layers.
    """

    rank: int = number_in(1, default=16)
    alpha: float = number_in(0, default=32.0)
    dropout: float = number_in(0, 1, default=0.0)
    targets: list[str] | None = None


@dataclass(frozen=True)
class Optimization:
    """How long, how fast and in what order a model learns.

    Attributes:
        lr: Learning rate at its highest.
        steps: Updates; or `epochs`.
        epochs: Passes over the data, where `steps` is not given.
        batch_size: Examples (pairs, texts) in an update.
        accumulation: Parts that a batch is computed in, one after the other.
        optimizer: `adamw`, or `adafactor`, the papers'.
        beta1: Of AdamW.
        beta2: Of AdamW.
        epsilon: Of AdamW.
        weight_decay: Of matrices.
        warmup: Steps in which the rate rises from 0.
        schedule: What the rate does then.
        clip: Largest norm of the gradient; 0 for none.
        dropout: Probability in every dropout of the model; by default the model's own.
        precision: Of the products; `bfloat16` computes them in it over float32 weights. `auto` is bfloat16 where the device has
            instructions for it, else float32; the run records which, and goes on in it.
        gradient_checkpointing: Compute activations twice to store fewer.
        seed: Of dropout.
        order: Seed of the order of the data.
        save_every: Steps between states that a killed run resumes from.
        evaluate_every: Steps between evaluations on the validation set; 0 for the end alone.
        keep: Steps whose models are kept (Baklava's inits).
    """

    lr: float = number_in(0, default=1e-5)
    steps: int | None = number_in(1, default=None)
    epochs: float | None = number_in(0, default=None)
    batch_size: int = number_in(1, default=16)
    accumulation: int = number_in(1, default=1)
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    beta1: float = number_in(0, 1, default=0.9)
    beta2: float = number_in(0, 1, default=0.999)
    epsilon: float = number_in(0, default=1e-8)
    weight_decay: float = number_in(0, default=0.0)
    warmup: int = number_in(0, default=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    clip: float = number_in(0, default=1.0)
    dropout: float | None = number_in(0, 0.99, default=None)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    seed: int = number_in(0, default=0)
    order: int = number_in(0, default=0)
    save_every: int = number_in(1, default=100)
    evaluate_every: int = number_in(0, default=0)
    keep: list[int] = field(default_factory=lambda: [])

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise UsageError("steps and epochs say the same thing twice; give one of them")
        if self.accumulation > self.batch_size:
            raise UsageError(f"accumulation {self.accumulation} splits a batch_size of {self.batch_size} into less than one")

    def steps_for(self, examples: int) -> int:
        """Return the number of updates over a data set."""
        if self.steps is not None:
            return self.steps
        epochs = 1.0 if self.epochs is None else self.epochs
        return max(1, round(epochs * examples / self.batch_size))


@dataclass(frozen=True)
class ProbeSection:
    """`probe:`, the head trained on frozen features, shared by all runs.

    Attributes:
        l2: Weight of the squared norm of the head, on features of unit variance. Under a large head dropout is loud.
    """

    l2: float = number_in(1e-9, default=0.1)


@dataclass(frozen=True)
class RunOutput:
    """`output:`, where the run goes.

    Attributes:
        path: Directory of the run; the model lies in its folder `model`.
        trackers: Where the metrics go beside `metrics.jsonl`, through accelerate: `tensorboard` writes event files to the run's
            folder `tensorboard`, `wandb` logs to Weights & Biases. Needs the `track` extra.
        project: At Weights & Biases; by default `warmkit`.
    """

    path: str
    trackers: list[Literal["tensorboard", "wandb"]] | None = None
    project: str | None = None


@dataclass(frozen=True)
class RewardOptimization(Optimization):
    """`rm:`, how a reward model learns.

    Attributes:
        center: Weight of the squared sum of both rewards of a pair, which keeps rewards around 0 (TRL's
            `center_rewards_coefficient`); 0 for none.
    """

    center: float = number_in(0, default=0.0)


@dataclass(frozen=True)
class SftRecipe:
    """A recipe of `warmkit train sft`."""

    model: ModelSection
    data: DataSection
    output: RunOutput
    sft: Optimization = Optimization()
    lora: LoraSection | None = None


@dataclass(frozen=True)
class RewardModelRecipe:
    """A recipe of `warmkit train rm`."""

    model: ModelSection
    data: DataSection
    output: RunOutput
    rm: RewardOptimization = RewardOptimization()
    probe: ProbeSection = ProbeSection()
    lora: LoraSection | None = None


@dataclass(frozen=True)
class ChoiceSection:
    """Which reward models of a pool are averaged.

    Attributes:
        seed: Of the random soups, and of the grid's order.
        orders: Random orders of the runs to compare the ranking with (WARM, figure 6).
        final: What becomes the final model, chosen on half of the validation pairs and measured on the other: the average of
            the M best runs (`top`, the paper's), of the best M of every M (`best`), of all runs (`all`), of all that average
            with the others (`connected`), or the greedy soup (`greedy`).
        m: Of `top`; by default half of the runs that are not excluded, rounded up, and at least 2.
    """

    seed: int = number_in(0, default=0)
    orders: int = number_in(0, default=5)
    final: Literal["top", "best", "all", "greedy", "connected"] = "top"
    m: int | None = number_in(1, default=None)

    def __post_init__(self) -> None:
        if self.m is not None and self.final != "top":
            raise UsageError(f"m is the number of models of final: top, and final is {self.final}; leave m out")

    def top(self, pool: int) -> int:
        """Return how many models of a pool `top` averages."""
        return self.m or max(2, -(-pool // 2))


@dataclass(frozen=True)
class RunsSection(ChoiceSection):
    """How many reward models are trained, where, and what becomes of them.

    Attributes:
        runs: Fine-tunings.
        inits: Checkpoints of one SFT trajectory (Baklava); by default `model.path` alone.
        jobs: Runs at the same time, each a process; by default as many as cores or GPUs allow.
        executor: Where they go: `processes` of this machine, or tasks of a `ray` cluster.
        exclude: Names of runs to leave out.
    """

    runs: int = number_in(2, default=6)
    inits: list[str] | None = None
    jobs: int | None = number_in(1, default=None)
    executor: Executor = "processes"
    exclude: list[str] = field(default_factory=lambda: [])

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m is not None and self.m > self.runs:
            raise UsageError(f"m {self.m} is more than the {self.runs} runs")


@dataclass(frozen=True)
class WarmSection(RunsSection):
    """`warm:`, how many runs, how they differ, and what becomes of them.

    Attributes:
        lr: Rates of the grid; by default `rm.lr` alone.
        dropout: Probabilities of the grid; by default `rm.dropout` alone.
    """

    lr: list[float] | None = number_in(0, default=None)
    dropout: list[float] | None = number_in(0, 0.99, default=None)


@dataclass(frozen=True)
class WarmRecipe:
    """A recipe of `warmkit warm`."""

    model: ModelSection
    data: DataSection
    output: RunOutput
    rm: RewardOptimization = RewardOptimization()
    warm: WarmSection = WarmSection()
    probe: ProbeSection = ProbeSection()
    lora: LoraSection | None = None


@dataclass(frozen=True)
class ReadingSection:
    """`model:` of finished reward models: what is read of a text.

    Attributes:
        max_length: Tokens of prompt and answer together; by default what the models allow.
    """

    max_length: int | None = number_in(8, default=None)


@dataclass(frozen=True)
class HeldOutSection:
    """`data:` of finished reward models: files or `datasets` names.

    Attributes:
        validation: Held out. The models are ranked on half of it and measured on the other.
        ood: Held out, of another distribution.
        chat: Make chats of rows that are texts, for the models' chat template.
        equal_pairs: Whether pairs of two equal answers are refused, or left out and counted.
    """

    validation: str
    ood: str | None = None
    chat: bool = False
    equal_pairs: Literal["refuse", "skip"] = "refuse"


@dataclass(frozen=True, kw_only=True)
class MembersSection(ChoiceSection):
    """`warm:` of finished reward models, whoever trained them.

    Attributes:
        members: Directories or Hub repositories, of one architecture.
    """

    members: list[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.members) < max(2, self.m or 0):
            raise UsageError(f"expected at least {max(2, self.m or 0)} members, found {len(self.members)}")


@dataclass(frozen=True)
class MembersRecipe:
    """A recipe of `warmkit warm` whose reward models are trained already."""

    data: HeldOutSection
    output: RunOutput
    warm: MembersSection
    model: ReadingSection = ReadingSection()
