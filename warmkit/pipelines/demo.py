"""The point of weight averaging, shown from nothing: pre-train, fine-tune several times, merge, compare.

The text is the docstrings of the standard library that runs this. A tiny Llama learns the general modules, is fine-tuned
several times on the networking modules, each time in another order, and the results are merged by the engine, on disk.
Losses are those of networking modules that nothing was trained on. It takes about a minute on two cores.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import shutil
import sysconfig
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from warmkit.checkpoints.manifest import GroupReport
from warmkit.checkpoints.merge import cores, merge
from warmkit.checkpoints.staging import writing
from warmkit.data.docstrings import docstrings, module, sources
from warmkit.errors import OutputError, UsageError, WarmkitError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Advance: TypeAlias = Callable[[int, int], None]
"""Called with the steps done since the last call and the total to do."""

# fmt: off
NETWORKING = frozenset((
    "asynchat", "asyncio", "asyncore", "email", "ftplib", "http", "imaplib", "ipaddress", "mailbox", "nntplib", "poplib",
    "selectors", "smtpd", "smtplib", "socket", "socketserver", "ssl", "telnetlib", "urllib", "wsgiref", "xmlrpc",
))
# fmt: on
END = "<|end|>"  # token 0, after every docstring
MOST_THREADS = 4  # the matrices are too small to feed more
Kind: TypeAlias = Literal["init", "run", "mean", "merge", "ensemble"]


@dataclass(frozen=True)
class Schedule:
    """How long to train and how fast: the rate falls in a straight line from `first` to `last`, after a short warm-up."""

    steps: int
    first: float
    last: float

    def rate(self, step: int) -> float:
        """Return the learning rate of one step, counted from 0."""
        warm_up = min(1.0, 12 * (step + 1) / self.steps)
        return warm_up * (self.first + (self.last - self.first) * step / self.steps)


@dataclass(frozen=True)
class DemoSize:
    """How big the demonstration is.

    The rate of fine-tuning stays high to the end, so that runs end far from each other: task vectors lie 34 to 36 degrees
    apart. A single run alone would do better at a lower rate, and gain less from merging.

    Attributes:
        vocabulary: Tokens, at most.
        width: Of the residual stream.
        layers: Of the transformer.
        context: Tokens in a window.
        batch: Windows in a step.
        pretraining: Of the initialisation.
        finetuning: Of every run.
        runs: How many fine-tunings.
        etas: LITI's update rates.
        files: Files read of either part, at most; None reads all.
    """

    vocabulary: int = 2048
    width: int = 128
    layers: int = 2
    context: int = 128
    batch: int = 8
    pretraining: Schedule = Schedule(900, 3e-3, 1.5e-4)
    finetuning: Schedule = Schedule(120, 1.5e-3, 1.5e-3)
    runs: int = 4
    etas: tuple[float, ...] = (0.3, 0.5, 0.7, 1.2)
    files: int | None = None


# ---- what comes out -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DemoRow:
    """One line of the comparison.

    Attributes:
        name: Of the checkpoint, where there is one.
        what: What it is, for people.
        kind: `mean` and `ensemble` are no single model.
        loss: Mean negative log-likelihood of a held-out token, in nats.
    """

    name: str
    what: str
    kind: Kind
    loss: float

    @property
    def perplexity(self) -> float:
        """Return exp(loss)."""
        return math.exp(self.loss)


@dataclass(frozen=True)
class DemoOutcome:
    """What the demonstration found.

    Attributes:
        rows: Every model, in the order of the story.
        angles: Between the task vectors of the runs, in degrees, [M][M]; the mean over layers, weighted by parameters.
        seed: The seed.
        path: Where the checkpoints are; None if they were temporary.
    """

    rows: tuple[DemoRow, ...]
    angles: tuple[tuple[float, ...], ...]
    seed: int
    path: Path | None

    @property
    def title(self) -> str:
        """Return the table's title."""
        return "Networking docstrings that no model was trained on"

    def row(self, name: str) -> DemoRow:
        """Return the row called `name`."""
        return next(row for row in self.rows if row.name == name)

    def best(self, *kinds: Kind) -> DemoRow:
        """Return the row of the lowest loss among some kinds."""
        return min((row for row in self.rows if row.kind in kinds), key=lambda row: row.loss)

    def summary(self) -> str:
        """Say in a few lines what the numbers say, whatever they are."""
        best, mean, run = self.best("init", "run", "merge"), self.row("mean of runs"), self.best("run")
        shown = dict.fromkeys((self.row("lerp"), self.row("slerp"), self.best("merge")))
        return "\n".join(
            [
                f"Best single model on this text: {best.name} ({best.what}), perplexity {best.perplexity:.2f}.",
                *(_compared(row, mean, run) for row in shown),
                "Mean angles between the task vectors of the runs, in degrees:",
                *("  " + " ".join(f"{angle:6.1f}" for angle in line) for line in self.angles),
                f"Checkpoints: {self.path}" if self.path else "The checkpoints were temporary; -o DIRECTORY keeps them.",
            ]
        )

    def as_document(self) -> dict[str, Any]:
        """Return everything in types that JSON knows."""
        return {
            "title": self.title,
            "seed": self.seed,
            "rows": [{**asdict(row), "perplexity": row.perplexity} for row in self.rows],
            "angles": [list(line) for line in self.angles],
            "checkpoints": None if self.path is None else str(self.path),
        }


def _compared(row: DemoRow, mean: DemoRow, run: DemoRow) -> str:
    def than(other: DemoRow) -> str:
        difference = row.loss - other.loss
        return f"{abs(difference):.4f} {'below' if difference < 0 else 'above'}"

    return f"{row.name}: loss {than(mean)} the runs' mean, {than(run)} the best run ({run.name})."


# ---- text -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Text:
    """Token streams, and the tokenizer that wrote them: it has seen the general part alone."""

    tokenizer: Tokenizer
    general: torch.Tensor
    target: torch.Tensor
    held_out: torch.Tensor


def _read(size: DemoSize) -> _Text:
    library = Path(sysconfig.get_path("stdlib"))
    files = sources(library)
    networking = [path for path in files if module(path, library) in NETWORKING][: size.files]
    general = [path for path in files if module(path, library) not in NETWORKING][: size.files]
    training, held_out = [path for number, path in enumerate(networking) if number % 4], networking[::4]
    seen: set[str] = set()  # what two files say belongs to the first, so nothing held out was ever trained on
    parts = [_unseen(part, seen) for part in (general, training, held_out)]
    if any(sum(map(len, part)) < 16 * size.context * size.batch for part in parts):
        raise WarmkitError(f"{library}: expected the source files of the standard library, with their docstrings")
    tokenizer = _train_tokenizer(parts[0], size.vocabulary)
    return _Text(tokenizer, *(_encode(tokenizer, part) for part in parts))


def _unseen(files: Iterable[Path], seen: set[str]) -> list[str]:
    """Return the docstrings of files that are not in `seen`, and add them to it."""
    texts = dict.fromkeys(chain.from_iterable(map(docstrings, files)))
    result = [text for text in texts if text not in seen]
    seen.update(result)
    return result


def _train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _encode(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    return torch.tensor([0, *chain.from_iterable([*each.ids, 0] for each in tokenizer.encode_batch(texts))])


# ---- training and evaluation ----------------------------------------------------------------------------------------


class _Workshop:
    """Trains and evaluates checkpoints in one folder; everything random follows from the seed and a name."""

    def __init__(self, folder: Path, text: _Text, size: DemoSize, seed: int, advance: Advance | None) -> None:
        from transformers import PreTrainedTokenizerFast

        self.folder, self.text, self.size, self.seed = folder, text, size, seed
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=text.tokenizer, bos_token=END, eos_token=END)
        count = (len(text.held_out) - 1) // size.context
        starts = size.context * torch.arange(count)
        self.held_out = _windows(text.held_out, starts, size).split(3 * size.batch)  # as dear as one step of training
        models = 1 + size.runs + 2 + len(size.etas)
        steps = size.pretraining.steps + size.runs * size.finetuning.steps + models * len(self.held_out)
        self.step = (lambda: advance(1, steps)) if advance else (lambda: None)

    def pretrain(self) -> Path:
        from transformers import LlamaConfig, LlamaForCausalLM

        size = self.size
        config = LlamaConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=size.width,
            intermediate_size=3 * size.width,
            num_hidden_layers=size.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=size.context,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        )
        torch.manual_seed(_number(self.seed, "weights"))
        return self._train("init", LlamaForCausalLM(config), self.text.general, size.pretraining)

    def finetune(self, name: str) -> Path:
        return self._train(name, self._load(self.folder / "init"), self.text.target, self.size.finetuning)

    def _train(self, name: str, model: Any, stream: torch.Tensor, schedule: Schedule) -> Path:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01, fused=True)
        generator = torch.Generator().manual_seed(_number(self.seed, name))
        for step, batch in enumerate(islice(_batches(stream, self.size, generator), schedule.steps)):
            optimizer.param_groups[0]["lr"] = schedule.rate(step)
            (-_log_likelihood(model, batch).mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            self.step()
        model.save_pretrained(self.folder / name)
        self.tokenizer.save_pretrained(self.folder / name)
        return self.folder / name

    @torch.no_grad()
    def evaluate(self, path: Path) -> torch.Tensor:
        """Return the log-likelihood of every held-out token, [tokens]."""
        model = self._load(path)
        scores: list[torch.Tensor] = []
        for batch in self.held_out:
            scores.append(_log_likelihood(model, batch))
            self.step()
        return torch.cat(scores)

    def _load(self, path: Path) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(path)


def _number(seed: int, name: str) -> int:
    return zlib.crc32(f"{seed} {name}".encode())


def _windows(stream: torch.Tensor, starts: torch.Tensor, size: DemoSize) -> torch.Tensor:
    return stream[starts[:, None] + torch.arange(size.context + 1)]


def _batches(stream: torch.Tensor, size: DemoSize, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield [batch, context + 1] windows without end: every epoch cuts the stream elsewhere and shuffles the pieces."""
    while True:
        first = int(torch.randint(size.context, (), generator=generator))
        count = (len(stream) - 1 - first) // size.context
        starts = first + size.context * torch.randperm(count, generator=generator)
        yield from (_windows(stream, part, size) for part in starts.split(size.batch))


def _log_likelihood(model: Any, batch: torch.Tensor) -> torch.Tensor:
    """Return log p(next token) for [B, T + 1] tokens, flat, [B * T]."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return -functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="none")


# ---- the demonstration ----------------------------------------------------------------------------------------------


def run_demo(output: Path | None, seed: int = 0, advance: Advance | None = None, size: DemoSize | None = None) -> DemoOutcome:
    """Pre-train a tiny Llama, fine-tune it several times, merge the runs on disk, and compare all of them.

    Args:
        output: Directory for the checkpoints, absent or empty; None keeps none.
        seed: Of the initial weights and the orders of the data. The same seed gives the same numbers on the same machine.
        advance: Progress callback.
        size: How big; by default for about a minute on two cores.

    Raises:
        OutputError: If `output` holds anything or cannot be created.
        UsageError: If transformers or tokenizers are not installed.
        WarmkitError: If this Python has no source files of its standard library.

    Source: WARP (Ramé et al., 2024), sections 3.2 and 3.3, with fine-tuning on text in the place of RL.
    """
    if any(importlib.util.find_spec(name) is None for name in ("transformers", "tokenizers")):
        raise UsageError("the demo trains models with transformers; install it: pip install 'warmkit[train]'")
    size = size or DemoSize()
    with _place(output) as folder, _quiet_and_repeatable():
        shop = _Workshop(folder, _read(size), size, seed, advance)
        rows, angles = _compare(shop)
    return DemoOutcome(rows, angles, seed, output)


def _compare(shop: _Workshop) -> tuple[tuple[DemoRow, ...], tuple[tuple[float, ...], ...]]:
    folder, etas = shop.folder, shop.size.etas
    init = shop.pretrain()
    runs = [shop.finetune(f"run-{number}") for number in range(1, shop.size.runs + 1)]
    lerp = merge(runs, folder / "lerp", init=init, method="lerp")
    slerp = merge(runs, folder / "slerp", init=init, method="slerp")
    liti = merge(runs, folder / "liti", init=init, method="slerp", eta=etas)

    scores = torch.stack([shop.evaluate(run) for run in runs])
    ensemble = torch.logsumexp(scores, 0) - math.log(len(runs))

    def row(path: Path, what: str, kind: Kind) -> DemoRow:
        return DemoRow(str(path.relative_to(folder)), what, kind, _loss(shop.evaluate(path)))

    rows = (
        row(init, "pre-trained on general modules", "init"),
        *(DemoRow(run.name, "fine-tuned on networking modules", "run", _loss(score)) for run, score in zip(runs, scores)),
        DemoRow("mean of runs", "mean of their losses", "mean", _loss(scores)),
        row(lerp.path, "mean of the weights of the runs", "merge"),
        row(slerp.path, "arc between task vectors, by layer", "merge"),
        *(row(path, f"init + {eta:g} (slerp - init)", "merge") for eta, path in liti.outputs.items()),
        DemoRow("ensemble", f"mean of the probabilities of {len(runs)} runs", "ensemble", _loss(ensemble)),
    )
    return rows, _mean_angles(slerp.groups)


def _loss(scores: torch.Tensor) -> float:
    return -float(scores.double().mean())


def _mean_angles(groups: Sequence[GroupReport]) -> tuple[tuple[float, ...], ...]:
    """Return the angles of all groups, [M][M], averaged with their parameters as weights."""
    measured = [(group.angles, group.parameters) for group in groups if group.angles is not None]
    angles = np.array([angles for angles, _ in measured], dtype=np.float64)
    mean = np.average(angles, axis=0, weights=[parameters for _, parameters in measured])
    return tuple(tuple(line) for line in mean.tolist())


@contextlib.contextmanager
def _place(output: Path | None) -> Generator[Path, None, None]:
    """Give a folder to work in: a temporary one, or `output`, which is left as it was found if anything fails."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="warmkit-demo-") as folder:
            yield Path(folder)
        return
    with writing(output):
        found = output.exists()
        if found and (not output.is_dir() or any(output.iterdir())):
            raise OutputError(f"{output}: expected an empty directory or none; choose another -o")
        output.mkdir(parents=True, exist_ok=True)
    try:
        yield output
    except BaseException:
        for folder in output.iterdir():
            shutil.rmtree(folder)
        if not found:
            output.rmdir()
        raise


@contextlib.contextmanager
def _quiet_and_repeatable() -> Generator[None, None, None]:
    """Fix torch's threads, keep its random state and the voice of transformers; give all of them back."""
    from transformers.utils import logging

    threads, verbosity, bars = torch.get_num_threads(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    torch.set_num_threads(min(cores(), MOST_THREADS))
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
