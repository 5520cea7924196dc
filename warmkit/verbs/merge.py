"""The verbs that write a model: merge, liti, soup and ema. `prepare` and `write` do the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import Unpack

from warmkit.engine.doubts import refuse_doubts
from warmkit.engine.merge_options import MergeOptions, OutputOptions, PathLike, Varying, check_models
from warmkit.engine.result import MergeResult
from warmkit.engine.spec import ema_spec, liti_spec, merge_call, merge_spec
from warmkit.engine.write import write
from warmkit.verbs.ordering import doubts_of_order, in_order


def merge(
    models: Sequence[PathLike],
    output: PathLike,
    *,
    init: PathLike | None = None,
    method: str = "slerp",
    lambda_: Varying | None = None,
    coefficients: Sequence[Varying] | None = None,
    eta: Varying = 1.0,
    granularity: str | None = None,
    antiparallel: str = "error",
    angles: bool = False,
    **options: Unpack[MergeOptions],
) -> MergeResult:
    """Merge models on disk into one, or into one per eta.

        merged = (1 - eta) x0 + eta (x0 + sum_m c_m (x_m - x0))

    or, for a method that edits task vectors, x0 + eta scale d, where d is the edited sum of the task vectors.

    Args:
        models: Checkpoints, as `open_checkpoint` takes them.
        output: Directory to create.
        init: What the models were fine-tuned from; `zero` takes the weights themselves for task vectors.
        method: A name in `warmkit.METHODS`.
        lambda_: Of two models, the share of the second: a number, or one that changes over the model: a list of numbers is a
            gradient over the layers, a list of `{"pattern": "mlp", "value": 0.3}` goes by tensor name.
        coefficients: One per model instead, each a number, a gradient or rules.
        eta: LITI's update rate, or rules. Several numbers write `output/eta-0.3`, ... from one reading of the inputs.
        granularity: The parameters that share one angle, or one ranking: `layer`, `tensor` or `model`; by default layers, and
            tensors for methods that edit task vectors.
        antiparallel: `lerp` averages straight where task vectors oppose each other; `error` refuses.
        angles: Measure norms and angles even if the method does not need them.
        **options: See `OutputOptions`; and the parameters of the method, as `warmkit methods` lists them.

    Returns:
        What was written: paths, sizes, coefficients and angles.

    Raises:
        WarmkitError: Any of its kinds; the destination is untouched then.

    Source: WARP (Ramé et al., 2024), equations (SLERP), (26) and (LITI); `docs/methods` for the others.
    """
    check_models(models)
    spec, start, how = merge_call(
        len(models),
        init=init,
        method=method,
        lambda_=lambda_,
        coefficients=coefficients,
        eta=eta,
        granularity=granularity,
        antiparallel=antiparallel,
        angles=angles,
        **options,
    )
    return write(spec, models, start, output, how)


def liti(
    model: PathLike,
    output: PathLike,
    *,
    init: PathLike,
    eta: float | Sequence[float],
    **options: Unpack[OutputOptions],
) -> MergeResult:
    """Interpolate a model towards its initialisation (LITI).

        result = (1 - eta) x0 + eta x

    Args:
        model: Checkpoint x, as `open_checkpoint` takes it.
        output: Directory to create.
        init: What it was fine-tuned from, x0.
        eta: 0 is the init, 1 the model; above 1 goes beyond it. Several numbers write `output/eta-0.3`, ... from one reading.
        **options: See `OutputOptions`.

    Returns:
        What was written; `outputs` has the directory of every eta.

    Raises:
        WarmkitError: Any of its kinds; the destination is untouched then.

    Source: WARP (Ramé et al., 2024), equation (LITI).
    """
    return write(liti_spec(eta), [model], init, output, options)


def soup(models: Sequence[PathLike], output: PathLike, **options: Unpack[OutputOptions]) -> MergeResult:
    """Average models with equal weights (model soup): result = (x_1 + ... + x_M) / M.

    Args:
        models: Checkpoints, as `open_checkpoint` takes them.
        output: Directory to create.
        **options: See `OutputOptions`.

    Raises:
        WarmkitError: Any of its kinds; the destination is untouched then.

    Source: Wortsman et al., 2022, "Model soups"; `greedy_soup` chooses the members by a score.
    """
    check_models(models)
    spec = replace(merge_spec("uniform", len(models)), name="soup", parameters={})
    return write(spec, models, None, output, options)


def ema(
    checkpoints: Sequence[PathLike],
    output: PathLike,
    *,
    mu: float | None = None,
    sort: str = "given",
    **options: Unpack[OutputOptions],
) -> MergeResult:
    """Average checkpoints of one run exponentially (EMA), in order.

        theta <- (1 - mu) theta + mu x_t, from the first checkpoint on

    Args:
        checkpoints: The oldest first.
        output: Directory to create.
        mu: Update rate; by default 2/(T+1), with which T checkpoints count about alike.
        sort: `natural` puts step-200 before step-1000, whatever the order given.
        **options: See `OutputOptions`.

    Raises:
        WarmkitError: Any of its kinds; the destination is untouched then.

    Source: WARP (Ramé et al., 2024), equation (EMA).
    """
    check_models(checkpoints)
    ordered = in_order(checkpoints, sort)
    doubts = [] if sort == "natural" else doubts_of_order(checkpoints)
    refuse_doubts(doubts, options.get("strict", False))
    result = write(ema_spec(len(ordered), mu), ordered, None, output, options)
    return replace(result, notes=(*result.notes, *doubts))
