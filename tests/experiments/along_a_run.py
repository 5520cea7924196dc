"""Averages along a run on the testbed: WSM against a real decay, and how straight runs of RL are (RELEX).

    python -m tests.experiments.along_a_run --seeds 5 -o along-a-run.jsonl --page docs/experiments.md

Every seed is a line of the file, written when it is done; the page gets tables between two marks. About two minutes a seed on
one core. Settings were chosen on seed 99, the rules below before seeds 0 to 4 were run.

WSM: a decoder learns the testbed's language for 3,000 steps at a constant rate. From step 2,400 on, a branch with the same
texts decays its rate as 1 - sqrt. The checkpoints of the constant run's last 600 steps, one every 50, are merged. What counts
is the loss on 4,096 texts that nobody trains on. Statements, each on the interval of a difference over seeds (Student's t,
95%):

1. the 1 - sqrt merge is better than the last checkpoint of the constant run;
2. the 1 - sqrt merge is better than the real decay;
3. after the decay, the mean of its last 4 checkpoints is better than its last one.

RELEX: a policy learns the gold reward itself for 300 steps, from the SFT model. From the checkpoints of its first 90 steps it
is continued to step 300. Statements, on the gold reward:

4. one direction explains more than 90% of the task vectors of the whole run (share of the first eigenvalue);
5. the continued policy is better than the last checkpoint that was seen;
6. the continued policy is better than the trained one at step 300.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import warmkit
from tests.experiments.demo_seeds import known
from tests.experiments.pages import write_between
from warmkit.common.random_streams import generator, seed_torch
from warmkit.evaluation.few_values import student_interval
from warmkit.evidence.claims.warm_policies import oracle_proxy
from warmkit.evidence.testbed.bed import Testbed
from warmkit.evidence.testbed.gold_judge import Judge
from warmkit.evidence.testbed.pretraining import Shape, batch, loss, new_model, tokenizer
from warmkit.evidence.testbed.sizes import PoliciesSection, PretrainingSection, TestbedSettings
from warmkit.modeling.saving import save_new_model
from warmkit.verbs.run_shape import run_shape

MARK = "along a run"
STEPS, BRANCH, EVERY, RATE, TEXTS, WARMUP = 3000, 2400, 50, 3e-3, 32, 100
SEEN, END, KEPT = 90, 300, 15
SETTINGS = TestbedSettings(pretraining=PretrainingSection(steps=1200, batch_size=32, spread=0.1), evaluated=64)
RL = PoliciesSection(steps=END, batch_size=8, samples=4, lr=1e-3, anchor="init", beta=0.05)


# ---- WSM ------------------------------------------------------------------------------------------------------------


class Course:
    """A pre-training at a constant rate, which a branch can decay."""

    def __init__(self, seed: int) -> None:
        seed_torch("initial weights", seed)
        self.model = new_model(Shape(spread=0.1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0.0)
        self.draw = generator("pretraining texts", seed)
        self.done = 0

    def branch(self) -> Course:
        other = copy.deepcopy(self)
        other.optimizer = torch.optim.AdamW(other.model.parameters(), lr=RATE, weight_decay=0.0)
        other.optimizer.load_state_dict(self.optimizer.state_dict())
        return other

    def go(self, until: int, rate: Callable[[int], float], folder: Path | None = None) -> None:
        """Train up to a step; `rate` is the factor of the rate at a step. Checkpoints go to a folder."""
        while self.done < until:
            self.done += 1
            for group in self.optimizer.param_groups:
                group["lr"] = RATE * rate(self.done)
            loss(self.model, *batch(TEXTS, self.draw)).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if folder is not None and self.done % EVERY == 0:
                save_new_model(self.model, tokenizer(), folder / f"checkpoint-{self.done}")


def wsm(folder: Path, seed: int) -> dict[str, float]:
    """Return losses on held-out texts."""
    course = Course(seed)
    course.go(BRANCH, lambda step: min(1.0, step / WARMUP))
    decayed = course.branch()
    course.go(STEPS, lambda _: 1.0, folder / "constant")
    decayed.go(STEPS, lambda step: 1 - ((step - BRANCH) / (STEPS - BRANCH)) ** 0.5, folder / "decayed")
    count = (STEPS - BRANCH) // EVERY
    warmkit.average(folder / "constant", folder / "merged", schedule=["uniform", "minus-sqrt"], last=[4, count])
    warmkit.average(folder / "decayed", folder / "after", last=[4, count])
    held_out = batch(4096, generator("pretraining texts", 10**6 + seed))
    places = {
        "constant": folder / "constant" / f"checkpoint-{STEPS}",
        "decay": folder / "decayed" / f"checkpoint-{STEPS}",
        **{name: folder / "merged" / name for name in (f"minus-sqrt-{count}", f"uniform-{count}", "minus-sqrt-4", "uniform-4")},
        **{f"decay, uniform-{size}": folder / "after" / f"uniform-{size}" for size in (4, count)},
    }
    return {name: _loss(course.model, path, held_out) for name, path in places.items()}


def _loss(model: Any, path: Path, texts: tuple[torch.Tensor, torch.Tensor]) -> float:
    model.load_state_dict(load_file(path / "model.safetensors"))
    with torch.no_grad():
        return float(loss(model, *texts))


# ---- RELEX ----------------------------------------------------------------------------------------------------------


def relex(folder: Path, seed: int) -> dict[str, float]:
    """Return the shape of a policy's run, and gold rewards on the way and beyond."""
    bed = Testbed(folder, seed, SETTINGS)
    gold = oracle_proxy(bed)
    run = bed.policy("rl", [gold], RL, keep=list(range(KEPT, END + 1, KEPT)))
    judge = Judge(bed, gold)
    seen = {step: path for step, path in sorted(run.kept.items()) if step <= SEEN}
    warmkit.merge(
        list(seen.values()),
        folder / "relex",
        init=bed.sft,
        method="relex",
        times=END / SEEN,
        steps=[float(each) for each in seen],
    )
    whole = run_shape([path for _, path in sorted(run.kept.items())], init=bed.sft)
    start = run_shape(list(seen.values()), init=bed.sft)
    ends = {"seen": run.kept[SEEN], "trained": run.kept[END], "continued": folder / "relex"}
    found = {name: judge.measure(load_file(path / "model.safetensors")) for name, path in ends.items()}
    return {
        "share": whole.first_share or 0.0,
        "share of what was seen": start.first_share or 0.0,
        "linearity": whole.linearity or 0.0,
        "participation": whole.participation or 0.0,
        "sft": judge.sft["gold"],
        **{name: numbers["gold"] for name, numbers in found.items()},
        **{f"kl {name}": numbers["kl"] for name, numbers in found.items()},
    }


# ---- page -----------------------------------------------------------------------------------------------------------


def text_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the statements and the tables as Markdown."""
    count = (STEPS - BRANCH) // EVERY
    losses, runs = [row["wsm"] for row in rows], [row["relex"] for row in rows]
    merged, nats, points = f"minus-sqrt-{count}", "{:.4f} nats ({:.4f} to {:.4f})", "{:+.3f} ({:+.3f} to {:+.3f})"
    last, seen = "the last constant checkpoint", "the last checkpoint seen"
    statements = [
        (f"the 1 - sqrt merge is better than {last}", [each["constant"] - each[merged] for each in losses], nats),
        ("it is better than the real decay", [each["decay"] - each[merged] for each in losses], nats),
        (
            "after the decay, the mean of the last 4 checkpoints is better than the last",
            [each["decay"] - each["decay, uniform-4"] for each in losses],
            nats,
        ),
        ("one direction explains more than 90% of a policy's run", [each["share"] - 0.9 for each in runs], points),
        (f"the continued policy is better than {seen}", [each["continued"] - each["seen"] for each in runs], points),
        ("it is better than the trained one", [each["continued"] - each["trained"] for each in runs], points),
    ]
    lines = ["| statement | verdict | gain (95% over seeds) |", "| --- | --- | --- |"]
    for said, values, how in statements:
        found = student_interval(values)
        verdict = "holds" if found.low > 0 else "does not hold" if found.high < 0 else "undecided"
        lines.append(f"| {said} | {verdict} | {how.format(found.value, found.low, found.high)} |")
    tables = [("Loss on held-out texts", "wsm", 4), ("Policies: shape of the run, and gold reward", "relex", 3)]
    return "\n".join(lines) + "\n\n" + "\n\n".join(_table(rows, *each) for each in tables)


def _table(rows: Sequence[Mapping[str, Any]], caption: str, key: str, digits: int) -> str:
    names, number = list(rows[0][key]), f"{{:.{digits}f}}"
    cells = [[str(row["seed"]), *(number.format(row[key][name]) for name in names)] for row in rows]
    means = [student_interval([row[key][name] for row in rows]) for name in names]
    span = f"{number} ({number} to {number})"
    cells.append(["mean (95%)", *(span.format(each.value, each.low, each.high) for each in means)])
    head = [["seed", *names], ["---"] * (1 + len(names))]
    return f"{caption}:\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in (*head, *cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="file of a line a seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, help="this seed alone, printed")
    parser.add_argument("--page", type=Path, help="Markdown file with the two marks, which gets the tables")
    given = parser.parse_args()
    for seed in range(given.seeds) if given.seed is None else [given.seed]:
        if seed in known(given.output):
            continue
        folder = Path(tempfile.mkdtemp())
        row = {"seed": seed, "wsm": wsm(folder / "wsm", seed), "relex": relex(folder / "relex", seed)}
        shutil.rmtree(folder)
        with given.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    if given.seed is None and given.page is not None:
        write_between(
            given.page,
            MARK,
            "tests.experiments.along_a_run",
            text_of([known(given.output)[each] for each in range(given.seeds)]),
        )


if __name__ == "__main__":
    main()
