from __future__ import annotations

import torch
from safetensors.torch import load_file

from warmkit.data.preferences import read_pairs
from warmkit.evaluation.accuracy import pairwise_accuracy
from warmkit.evaluation.comparisons import encode_pairs, score
from warmkit.evidence.claims.warm_pools import ranking
from warmkit.evidence.testbed.bed import Testbed
from warmkit.modeling.reward_model import load_reward_model


def accuracy(path: str, file: str) -> float:
    model = load_reward_model(path)
    return pairwise_accuracy(score(model, encode_pairs(read_pairs(file), model.encoder, "refuse")))


def test_models_are_ranked_by_held_out_accuracy(tiny_bed: Testbed) -> None:
    for file in (tiny_bed.validation, tiny_bed.ood):
        ranked = ranking(tiny_bed, tiny_bed.pool("flips", 3), file)
        accuracies = [accuracy(str(path), file) for path in ranked.best(3)]
        assert accuracies == sorted(accuracies, reverse=True)
        assert sorted(ranked.names) == ["run-1", "run-2", "run-3"]


def test_the_average_of_the_best_has_their_mean_weights(tiny_bed: Testbed) -> None:
    ranked = ranking(tiny_bed, tiny_bed.pool("flips", 3))
    merged, (a, b) = ranked.average(tiny_bed, 2), ranked.best(2)
    weights = [load_file(path / "model.safetensors") for path in (merged, a, b)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, (weights[1][name] + weights[2][name]) / 2)
