"""Scores of merges that are searched: by a command that reads a directory, or of a model in memory."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from warmkit.common.functions import NAMED, import_function
from warmkit.data.preferences import read_pairs
from warmkit.errors import ScoreError, UsageError
from warmkit.evaluation.comparisons import encode_pairs
from warmkit.evaluation.comparisons import score as score_pairs
from warmkit.modeling.causal_model import load_causal_model
from warmkit.modeling.quiet import loading, quiet
from warmkit.modeling.reward_model import load_scorer, trained_head
from warmkit.modeling.weights import home_of, load_weights
from warmkit.verbs.greedy_soup import PLACEHOLDER, run_score
from warmkit.verbs.merge import merge
from warmkit.verbs.merger import Merger
from warmkit.verbs.search_space import Candidate, Space

PAIRS = "accuracy:"


@dataclass(frozen=True)
class Score:
    """Score of a merge.

    Attributes:
        name: In tables and files.
        what: A command with `{}` for the directory, which prints the score on its last line; `module:function`, called with the
            model and its tokenizer; or `accuracy:FILE`, the share of preference pairs that a reward model orders rightly (a tie
            counts half).
        smaller: Whether less is better.
    """

    name: str
    what: str
    smaller: bool = False

    @property
    def in_memory(self) -> bool:
        return PLACEHOLDER not in self.what

    def cost(self, value: float) -> float:
        """Return a score so that less is better."""
        return value if self.smaller else -value


def read_score(text: str, smaller: bool = False, name: str = "score") -> Score:
    """Read `[NAME=]WHAT`.

    Raises:
        UsageError: If there is nothing to score with.

    Examples:
        >>> read_score("tone=scores:tone")
        Score(name='tone', what='scores:tone', smaller=False)
    """
    named = re.fullmatch(r"(?:(?P<name>[a-z][a-z0-9_-]*)=)?(?P<what>.+)", text.strip(), re.DOTALL)
    if named is None:
        raise UsageError(f"expected a score as [NAME=]WHAT, found {text!r}")
    what = named["what"]
    if PLACEHOLDER not in what and not what.startswith(PAIRS) and NAMED.fullmatch(what) is None:
        raise UsageError(
            f"expected a command with {PLACEHOLDER} where the model directory goes, module:function or {PAIRS}FILE, "
            f"found {what!r}"
        )
    return Score(named["name"] or name, what, smaller)


class Trials:
    """Candidates, merged and scored one after another; models are read by ranges, and one is in memory at a time.

    Args:
        space: Which candidates there are.
        models: What is merged.
        init: What the models were fine-tuned from.
        scores: All of them, held-out ones too.
        place: Directory for the candidate that a command reads; it is removed after it.
        options: How models are read: `threads`, `allow_pickle`, `state_dict`.
    """

    def __init__(
        self,
        space: Space,
        models: Sequence[str],
        init: str | None,
        scores: Sequence[Score],
        place: Path,
        options: Mapping[str, Any],
    ) -> None:
        self.space, self.models, self.init, self.place, self.options = space, models, init, place, options
        self._mergers: dict[str, Merger] = {}
        self._weights: dict[str, torch.Tensor] | None = None
        self._functions: dict[str, Callable[[], float]] = {}
        self._load: Callable[[Mapping[str, torch.Tensor]], object] | None = None
        wanted = [each for each in scores if each.in_memory]
        if wanted:
            self._open(wanted)

    def _open(self, scores: Sequence[Score]) -> None:
        """Load the one model in memory whose weights are those of every candidate."""
        if importlib.util.find_spec("transformers") is None:
            raise UsageError(f"{scores[0].what} scores a model in memory; install transformers: pip install 'warmkit[train]'")
        from transformers import AutoTokenizer

        source = self.models[0]
        reward_model = load_scorer(source) if trained_head(source) is not None else None
        model = load_causal_model(source) if reward_model is None else reward_model.model
        self._load = reward_model.load_weights if reward_model else lambda weights: load_weights(model, weights, "the merge")
        with loading(source), quiet():
            tokenizer = AutoTokenizer.from_pretrained(home_of(source))
        for each in scores:
            if not each.what.startswith(PAIRS):
                function = import_function(each.what, "score")
                self._functions[each.what] = lambda function=function: function(model, tokenizer)
                continue
            if reward_model is None:
                raise UsageError(f"{each.what}: {source} has no scalar head, so it is no reward model")
            pairs = encode_pairs(read_pairs(each.what.removeprefix(PAIRS)), reward_model.encoder)
            self._functions[each.what] = lambda pairs=pairs: float(score_pairs(reward_model, pairs).won.mean())

    def measure(
        self,
        candidate: Candidate,
        scores: Sequence[Score],
        then: Callable[[Mapping[str, float]], Sequence[Score]] = lambda found: (),
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Merge a candidate once and score it.

        Args:
            candidate: Of the space.
            scores: What decides.
            then: Called with these scores; returns which others the candidate gets.

        Returns:
            Scores by name, and the seconds of merging and of scoring.

        Raises:
            ScoreError: If a score fails, or is no finite number.
            WarmkitError: What `merge` raises.
        """
        found, seconds = dict[str, float](), {"merging": 0.0, "scoring": 0.0}
        arguments, merged = self.space.arguments(candidate), set[bool]()

        def score(each: Score) -> None:
            if each.in_memory not in merged:
                with _timed(seconds, "merging"):
                    (self._take if each.in_memory else self._write)(dict(arguments))
                merged.add(each.in_memory)
            with _timed(seconds, "scoring"):
                found[each.name] = self._in_memory(each) if each.in_memory else run_score(each.what, self.place)

        try:
            for each in scores:
                score(each)
            for each in then(found):
                score(each)
        finally:
            shutil.rmtree(self.place, ignore_errors=True)
        return found, seconds

    def _write(self, arguments: dict[str, Any]) -> None:
        """Write a candidate for the commands."""
        shutil.rmtree(self.place, ignore_errors=True)
        merge(self.models, self.place, init=self.init, **arguments, **self.options)

    def _take(self, arguments: dict[str, Any]) -> None:
        """Put the weights of a candidate into the model in memory."""
        assert self._load is not None
        method = arguments.pop("method")
        if method not in self._mergers:
            fixed = {name: arguments[name] for name in ("granularity", "antiparallel") if name in arguments}
            self._mergers[method] = Merger(self.models, init=self.init, method=method, **fixed, **self.options)
        self._weights = self._mergers[method].state_dict(**arguments, out=self._weights)
        self._load(self._weights)

    def _in_memory(self, score: Score) -> float:
        try:
            with torch.no_grad():
                value = float(self._functions[score.what]())
        except Exception as error:  # a user's own code may raise anything
            raise ScoreError(f"score {score.name}: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise ScoreError(f"score {score.name}: expected a finite number, found {value}")
        return value


@contextlib.contextmanager
def _timed(seconds: dict[str, float], what: str) -> Generator[None, None, None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[what] += time.perf_counter() - began
