"""Reward models on held-out comparisons: each alone, WA and ENS of the first M for every M, the probe beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from warmkit.common.progress import Advance
from warmkit.data.preferences import read_pairs
from warmkit.errors import MismatchError, UsageError, nearest
from warmkit.evaluation.accuracy import Scores, agreement, ensemble, interval, pairwise_accuracy, report
from warmkit.evaluation.averaging import ByData, Contest
from warmkit.evaluation.comparisons import Comparisons, encode_pairs, same_after_encoding
from warmkit.evaluation.cost import inference_cost
from warmkit.evaluation.partners import Partners, partners
from warmkit.evaluation.ranking_pairs import FEW
from warmkit.layouts.compatibility import align
from warmkit.layouts.opening import open_inputs
from warmkit.modeling.reward_model import RewardModel, load_scorer, pooled_around, reading_of

PROBE = "probe only"


def open_contest(
    models: Sequence[str],
    data: Mapping[str, str],
    *,
    probe: str | None = None,
    max_length: int | None = None,
    chat: bool = False,
    equal_pairs: Literal["refuse", "skip"] = "refuse",
    precision: str = "float32",
) -> Contest:
    """Open reward models of one architecture and the data to compare them on; what does not fit is refused before scoring.

    Args:
        models: Directories or Hub repositories; the members get short names, in this order.
        data: Where each data set of preference pairs lies.
        probe: The model that the others were fine-tuned from, head trained on frozen features; its member is `PROBE`.
        max_length: Tokens a text may have.
        chat: Make chats of texts, for the models' chat template.
        equal_pairs: Whether pairs of equal answers are refused, or left out and counted.
        precision: `float32`, or `bfloat16`.

    Raises:
        MismatchError: If architectures, shapes or vocabularies differ, or two models read a text otherwise.
        UnsupportedError: If the first is no reward model.
        DataError: If a row of the data cannot be used.
        UsageError: If a model is given twice.
    """
    members = dict(zip(short_names(models), models)) | ({} if probe is None else {PROBE: probe})
    align(open_inputs(members.values(), {}))
    pairs = {name: read_pairs(source, chat=chat, equal_pairs=equal_pairs) for name, source in data.items()}
    model = load_scorer(models[0], max_length)
    encoded = {name: encode_pairs(each, model.encoder) for name, each in pairs.items()}
    for path in (*models[1:], *([] if probe is None else [probe])):
        _check_reading(model, path, encoded)
    return Contest(model, encoded, members, precision=precision)


def _check_reading(first: RewardModel, path: str, data: Mapping[str, Comparisons]) -> None:
    """Refuse a model that reads the data otherwise than the first, whose reading all of them and their averages share.

    Raises:
        MismatchError: If its tokens are others, or it pools around another padding.
    """
    encoder, pad_id = reading_of(path, first.encoder.max_length)
    if not encoder.pairs and pad_id != (expected := pooled_around(first.model.config)):
        named = first.encoder.tokenizer.convert_ids_to_tokens
        tokens = [named(each) if each is not None and each >= 0 else None for each in (pad_id, expected)]
        raise MismatchError(
            f"{path}: pads with {tokens[0]!r}, and {first.path} with {tokens[1]!r}, so that they read at other places; compare "
            "them by `warmkit score`"
        )
    for name, each in data.items():
        if encode_pairs(each.pairs, encoder).digest != each.digest:
            raise MismatchError(
                f"{path}: reads {name} as other tokens than {first.path}: their tokenizers or chat templates differ; compare "
                "them by `warmkit score`"
            )


def short_names(paths: Sequence[str]) -> list[str]:
    """Name models by what tells their paths apart; one alone by its path.

    Raises:
        UsageError: If two are the same.

    Examples:
        >>> short_names(["runs/run-1/model", "runs/run-2/model"])
        ['run-1', 'run-2']
        >>> short_names(["runs/run-1/model", "sft"])
        ['run-1', 'sft']
        >>> short_names(["a/rm", "b/rm", "other"])
        ['a/rm', 'b/rm', 'other']
    """
    if len(paths) == 1:
        return list(paths)
    parts = [Path(path).parts for path in paths]
    twice = next((path for place, path in enumerate(paths) if parts[place] in parts[:place]), None)
    if twice is not None:
        raise UsageError(f"expected different models, found {twice} twice")
    parts = [each[:-1] if each[1:][-1:] == ("model",) else each for each in parts]  # a run's own name says more
    while len({each[-1] for each in parts}) == 1 and all(len(each) > 1 for each in parts):
        parts = [each[:-1] for each in parts]
    tails = (["/".join(each[-count:]) for each in parts] for count in range(1, max(map(len, parts)) + 1))
    return next((names for names in tails if len(set(names)) == len(names)), list(paths))


def side_by_side(
    contest: Contest, rank: str | None = None, advance: Advance | None = None, *, two_by_two: bool = True
) -> dict[str, Any]:
    """Score every model alone, and WA and ENS of the first M for every M.

    Args:
        contest: Of `open_contest`.
        rank: Data set by whose accuracy, ties counted half, the models are ordered, best first; by default as they were given.
        advance: Called after every model.
        two_by_two: Also average every two of the models, on at most 1,000 pairs of one data set (`rank`, or the first), to name
            those that do not average with the others. Not with fewer than 50 pairs, which tell nothing.

    Returns:
        What `warmkit eval rm --json` prints: `models`, `data`, `individuals`, `probe`; of several models also `rank`,
        `averages` (one row a data set and M), `wa`, `ens`, `agreement` (by data set), `partners`, `notes` and `cost`.

    Raises:
        UsageError: If `rank` is no data set.

    Source: WARM (Ramé et al., 2024), section 3.
    """
    if rank is not None and rank not in contest.data:
        raise UsageError(f"--rank {rank}: no such data set{nearest(rank, contest.data)}")
    given = [name for name in contest.members if name != PROBE]
    judged = rank or next(iter(contest.data))
    two_by_two = two_by_two and len(contest.data[judged]) >= FEW
    total = len(contest.members) + len(given) - 1 + two_by_two * (len(given) * (len(given) - 1) // 2)
    tick = advance or (lambda done, total: None)
    tick(0, total)
    alone: dict[str, ByData] = {}
    for name in contest.members:
        alone[name] = contest.individual(name)
        tick(1, total)
    names = given if rank is None else sorted(given, key=lambda name: -alone[name][rank].won.mean())
    document: dict[str, Any] = {
        "models": {name: str(contest.members[name]) for name in names},
        "data": {name: _describe(each) for name, each in contest.data.items()},
        "individuals": {name: _reports(alone[name], contest) for name in names},
        "probe": _reports(alone[PROBE], contest) if PROBE in alone else None,
    }
    if len(names) == 1:
        return document
    rows: list[dict[str, Any]] = []
    wa = ens = alone[names[0]]
    for m in range(1, len(names) + 1):
        if m > 1:
            wa = contest.average(names[:m])
            ens = {data: ensemble([alone[name][data] for name in names[:m]]) for data in contest.data}
            tick(1, total)
        rows += [
            averages_row(data, m, wa[data], ens[data], alone[names[m - 1]][data], alone.get(PROBE)) for data in contest.data
        ]
    unknown, step = Partners(0, len(contest.data[judged]), {}), lambda: tick(1, total)
    found = partners(contest, names, judged, alone, step) if two_by_two else unknown
    return {
        **document,
        "rank": rank,
        "averages": rows,
        "wa": _reports(wa, contest),
        "ens": _reports(ens, contest),
        "agreement": {
            data: {a: {b: agreement(alone[a][data], alone[b][data]) for b in names} for a in names} for data in contest.data
        },
        "partners": {"data": judged, **found.document()},
        "notes": [f"{found.told(name, f'pairs of {judged}')} Leave it out, or train it anew" for name in found.bad()],
        "cost": inference_cost(contest.model, next(iter(contest.data.values())), len(names), contest.precision),
    }


def averages_row(data: str, m: int, wa: Scores, ens: Scores, last: Scores, probe: ByData | None) -> dict[str, Any]:
    """Return the accuracies of WA, ENS and the last of M models on one data set, and WA less ENS with its interval."""
    accuracy = interval(wa.correct, shares=True)
    return {
        "data": data,
        "m": m,
        "wa": accuracy.value,
        "wa_low": accuracy.low,
        "wa_high": accuracy.high,
        "ens": pairwise_accuracy(ens),
        "individual": pairwise_accuracy(last),
        "probe": None if probe is None else pairwise_accuracy(probe[data]),
        "wa_less_ens": dataclasses.asdict(interval(wa.correct - ens.correct)),
    }


def _describe(comparisons: Comparisons) -> dict[str, int]:
    return {
        "pairs": len(comparisons),
        "truncated": comparisons.truncated,
        "same": same_after_encoding(comparisons),
        "corrupt": sum(pair.corrupt for pair in comparisons.pairs),
        **({"skipped": comparisons.skipped} if comparisons.skipped else {}),
    }


def _reports(scores: ByData, contest: Contest) -> dict[str, dict[str, Any]]:
    """Report on every data set, and on every subset that its rows name."""
    return {name: _with_subsets(scores[name], each) for name, each in contest.data.items()}


def _with_subsets(scores: Scores, comparisons: Comparisons) -> dict[str, Any]:
    places_of = comparisons.subsets()
    labels = [name for name in ("clean", "corrupt") if name in places_of]
    subsets = {
        name: report(Scores(scores.chosen[places], scores.rejected[places]), comparisons.only(places).answer_lengths)
        for name, places in {**{name: places_of[name] for name in labels}, **places_of}.items()
    }
    return {**report(scores, comparisons.answer_lengths), "subsets": subsets}
