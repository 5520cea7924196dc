"""One step of the policy gradient."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import torch

from warmkit.errors import NonFiniteError, TrainingError
from warmkit.evaluation.answers import means
from warmkit.evaluation.policy_evaluator import Rollout, rollout_values
from warmkit.training.distributed import agreed, from_all, group, said_once, sum_gradients, summed
from warmkit.training.loop import batch_rows, with_advice
from warmkit.training.optimizers import rate
from warmkit.training.policy_gradient import advantages, clipped_loss, regularized, reinforce_loss
from warmkit.training.policy_recipe import PolicySection
from warmkit.training.policy_task import PolicyTask
from warmkit.training.sharding import clip_gradients, gathered

Measured = dict[str, torch.Tensor]


def take_step(task: PolicyTask, optimizer: torch.optim.Optimizer, step: int, steps: int) -> dict[str, Any]:
    """Sample, score, compare with the anchor, learn, and let the anchor follow (WARP, algorithm 1, lines 6 to 9).

    Args:
        task: Changed: its policy, its anchor, its value model.
        optimizer: Of the policy.
        step: Counted from 0.
        steps: In all.

    Returns:
        The step's metrics.

    Raises:
        TrainingError: If the logits, the loss or the gradient are not finite, or memory runs out.
    """
    how, data = task.how, task.data["train"]
    rows = batch_rows(len(data), how.batch_size, how.order, step)
    before = 0 if task.value is None else task.value.warmup
    for each in optimizer.param_groups:
        each["lr"] = rate(how, max(0, step - before), steps - before)
    began = time.perf_counter()
    try:
        share = group().share(len(rows))
        with agreed(), gathered(task.model):
            mine = task.roll_out(rows[share], step, share.start)
        rollout = _together(mine)
        sampled = time.perf_counter()
        learns = task.value is None or step >= task.value.warmup
        parts = _parts(how, len(rows[share]))
        own = _measure(task, mine, parts, gradient=learns and len(parts) == 1)
        measured = _measured_together(own)
        rewards = _regularized(how, rollout, measured)
        gains, value_numbers = _advantages(task, [data.ids[row] for row in rows], rewards)
        loss, norm, weights = 0.0, 0.0, gains[share].flatten().to(task.device)
        for update in range(how.updates if learns else 0):
            loss, norm = _learn(task, optimizer, mine, parts, own, weights, gains.numel(), first=update == 0)
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise said_once(NonFiniteError(f"the loss is {loss}, the norm of the gradient {norm}"))
            optimizer.step()
            optimizer.zero_grad()
            if task.anchor is not None:
                task.anchor.update()
    except NonFiniteError as error:
        raise _not_finite(task, rows, step, error) from None
    except (MemoryError, RuntimeError) as error:
        raise with_advice(error, "policy", step) from None
    ended = time.perf_counter()
    return {
        "step": step + 1,
        **means(rollout_values(rollout, measured)),
        **value_numbers,
        "reward_regularized": float(rewards.mean()),
        "loss": loss,
        "lr": optimizer.param_groups[0]["lr"],
        "grad_norm": norm,
        "tokens_per_second": sum(len(each.ids) for each in rollout.completions) / (ended - began),
        "seconds_sampling": sampled - began,
        "seconds_learning": ended - sampled,
    }


def _together(mine: Rollout) -> Rollout:
    """Return the completions of all processes, in the order of the batch."""
    if group().size == 1:
        return mine
    parts = from_all(mine)
    return Rollout(
        [each for part in parts for each in part.prompts],
        [each for part in parts for each in part.completions],
        [each for part in parts for each in part.texts],
        torch.cat([part.rewards for part in parts]),
        {name: torch.cat([part.scores[name] for part in parts]) for name in mine.scores},
    )


def _measured_together(own: Measured) -> Measured:
    """Return what the models say of the completions of all processes."""
    if group().size == 1:
        return own
    parts = from_all({name: each.detach().cpu() for name, each in own.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in own}


def _parts(how: PolicySection, prompts: int) -> list[slice]:
    """Divide the completions of a process's prompts into parts of whole prompts; as many in every process with shards."""
    count = min(how.accumulation, prompts)
    edges = [prompts * part // count * how.samples for part in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def _measure(task: PolicyTask, rollout: Rollout, parts: list[slice], gradient: bool) -> Measured:
    """Compare policy, anchor and SFT model; a batch in one part keeps the graph, so that its forward pass is computed once."""
    task.model.train()
    with torch.enable_grad() if gradient else torch.no_grad():
        pieces = [task.evaluator.measure(rollout, part, task.others) for part in parts]
    measured = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    if task.anchor is not None and "anchor" not in measured:  # it is the SFT model
        measured |= {"anchor": measured["sft"], "kl_anchor": measured["kl_sft"]}
    return measured


def _regularized(how: PolicySection, rollout: Rollout, measured: Measured) -> torch.Tensor:
    """Return r_beta, [B, K], on the CPU."""
    rewards = rollout.rewards
    if "anchor" in measured:
        rewards = regularized(rewards, how.beta, measured["policy"].cpu(), measured["anchor"].cpu())
    return rewards.view(-1, how.samples)


def _advantages(task: PolicyTask, prompts: list[list[int]], rewards: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the advantages, [B, K]; the value model predicts first and learns then."""
    if task.value is None:
        return advantages(rewards, task.how.baseline), {}
    values = task.value.predict(prompts)
    return advantages(rewards, "value", values), {"value": float(values.mean()), **task.value.learn(prompts, rewards)}


def _learn(
    task: PolicyTask,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    parts: list[slice],
    measured: Measured,
    weights: torch.Tensor,
    count: int,
    first: bool,
) -> tuple[float, float]:
    """Set the gradient; return the loss and the gradient's norm before it was clipped.

    Rollout, parts, measured and weights are this process's; `count` are the completions of all. After the first update the
    policy is no longer the one that sampled.
    """
    loss = 0.0
    for part in parts:
        known = first and len(parts) == 1  # with its graph
        spoken = measured["policy"] if known else task.evaluator.measure(rollout, part, {})["policy"]
        each = (
            reinforce_loss(weights[part], spoken)
            if first
            else clipped_loss(weights[part], spoken, measured["policy"][part], task.how.ratio_clip)
        )
        share = each * (len(spoken) / count)
        (share * group().scale).backward()
        loss += float(share.detach())
    learned = [each for group in optimizer.param_groups for each in group["params"]]
    sum_gradients(learned)
    return summed({"loss": loss})["loss"], clip_gradients(learned, task.how.clip or math.inf)


def _not_finite(task: PolicyTask, rows: list[int], step: int, error: NonFiniteError) -> TrainingError:
    places = ", ".join(task.data["train"].prompts[row].where for row in rows[:4]) + (", ..." if len(rows) > 4 else "")
    saved = step // task.how.save_every * task.how.save_every
    kept = f"; the state of step {saved} is kept" if saved else ""
    return TrainingError(f"step {step + 1}: {error} in the batch of {places}{kept}. Lower policy.lr, or raise policy.warmup")
