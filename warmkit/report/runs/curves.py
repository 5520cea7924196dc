"""Charts of training: every value against the steps, and where policies went in the plane of KL and reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warmkit.report.chart import Chart
from warmkit.report.html_page import slug
from warmkit.report.runs.metrics import EACH, Metrics, blocks, smoothed
from warmkit.report.runs.part import heading, words

MACHINERY = ("lr", "grad_norm", "tokens", "tokens_per_second", "examples_per_second")
FIRST = ("reward", "kl_sft", "loss", "accuracy", "margin", "kl_anchor", "entropy", "length", "without_eos")
LEFT_OUT = ("kl_sft_sampled", "kl_anchor_sampled", "reward_regularized", "reward_std", "seconds_sampling", "seconds_learning")
KL = "KL to the SFT model, nats"


def curves(runs: Mapping[str, Metrics], names: Sequence[str], prefix: str = "") -> list[Chart]:
    """Draw values against the steps, one chart each; of one run also its evaluations on the way.

    Args:
        runs: By name.
        names: Of the values.
        prefix: Of the charts' names.
    """
    return [chart for name in names for chart in _curve(runs, name, prefix)]


def learning(runs: Mapping[str, Metrics]) -> list[str]:
    """Return which values tell what was learned, the telling ones first."""
    known = _known(runs)
    terms = [name for name in known if name.startswith("reward_") and name not in LEFT_OUT]
    dull = {*MACHINERY, *LEFT_OUT, *(terms if len(terms) == 1 else [])}  # one term is the reward itself
    shown = [name for name in known if name not in dull]
    return sorted(shown, key=lambda name: _place(name, shown))


def machinery(runs: Mapping[str, Metrics]) -> list[str]:
    """Return which values tell how the machine worked."""
    return [name for name in _known(runs) if name in MACHINERY]


def _place(name: str, shown: Sequence[str]) -> tuple[int, int]:
    return (FIRST.index(name) if name in FIRST else 1 if name.startswith(("reward_", "control_")) else 90, shown.index(name))


def _known(runs: Mapping[str, Metrics]) -> list[str]:
    return list(dict.fromkeys(name for metrics in runs.values() for name in metrics.names()))


def _curve(runs: Mapping[str, Metrics], name: str, prefix: str) -> list[Chart]:
    """Return the chart of a value; with several runs their evaluations are a chart of their own."""
    single = len(runs) == 1
    title, anchor = words(name), slug(f"{prefix} {name}")
    rows: list[dict[str, Any]] = []
    evaluated: list[dict[str, Any]] = []
    window = 1
    for run, metrics in runs.items():
        points = metrics.of(name)
        line, widest = smoothed(points)
        window = max(window, widest)
        label = "training batches" if single else run
        if widest > 1 and len(points) <= EACH and single:
            rows += [{"line": label, "step": step, name: value, "each": "each step"} for step, value in points]
        rows += [{"line": label, "step": step, name: value} for step, value in line]
        found = [(each["step"], each[name]) for each in metrics.evaluations() if name in each]
        evaluated += [{"line": "evaluation" if single else run, "step": step, name: value} for step, value in found]
    if not rows:
        return []
    caption = "" if window == 1 else f"Mean over the last {window} steps{'; faint: each step' if single else ''}."
    thin = "each" if any("each" in row for row in rows) else None
    whole = rows + evaluated if single else rows
    chart = Chart(anchor, heading(name), whole, "step", name, "step", title, thin=thin, caption=caption)
    if single or not evaluated:
        return [chart]
    known = list(dict.fromkeys(row["line"] for row in evaluated))
    whose = f"Of {known[0]}, which alone was evaluated on the way." if len(known) == 1 else ""
    heads = f"{anchor}-validation", f"{heading(name)} on validation data"
    return [chart, Chart(*heads, evaluated, "step", name, "step", title, caption=whose)]


def plane(runs: Mapping[str, Metrics], prefix: str = "") -> list[Chart]:
    """Draw the paths of policies in the plane of KL and reward, and of KL and every control."""
    known = _known(runs)
    values = [name for name in known if name == "reward" or name.startswith("control_")] if "kl_sft" in known else []
    charts: list[Chart] = []
    for value in values:
        rows = [{"line": name, **each} for name, metrics in runs.items() for each in blocks(metrics.path(), ["kl_sft", value])]
        caption = "Evaluations on the way, or means over blocks of steps, from start to end."
        name, title = slug(f"{prefix} plane {value}"), f"Path of training: {words(value)} against the KL"
        charts.append(Chart(name, title, rows, "kl_sft", value, KL, words(value), order="step", caption=caption))
    return [chart for chart in charts if chart.rows]
