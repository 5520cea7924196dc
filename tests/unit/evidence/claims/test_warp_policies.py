from __future__ import annotations

import torch
from safetensors.torch import load_file

from warmkit import merged_state_dict
from warmkit.evidence.claims.warp_policies import iteration, policies
from warmkit.evidence.testbed.bed import Testbed


def test_the_first_iteration_is_the_policies_of_the_sft_model(tiny_bed: Testbed) -> None:
    first = iteration(tiny_bed, 1)
    assert first.models == policies(tiny_bed, 2).models
    assert first.init == tiny_bed.sft


def test_an_iteration_starts_between_the_init_and_the_merge_of_the_one_before(tiny_bed: Testbed) -> None:
    second = iteration(tiny_bed, 2, eta=0.3)
    merged = merged_state_dict(policies(tiny_bed, 2).models, init=tiny_bed.sft, method="slerp")
    sft, init = load_file(tiny_bed.sft / "model.safetensors"), load_file(second.init / "model.safetensors")
    assert all(torch.allclose(init[name], 0.7 * sft[name] + 0.3 * merged[name], atol=1e-6) for name in sft)


def test_iterations_and_their_policies_have_places_and_orders_of_their_own(tiny_bed: Testbed) -> None:
    second, third, other = iteration(tiny_bed, 2), iteration(tiny_bed, 3), iteration(tiny_bed, 2, eta=0.5)
    models = [*policies(tiny_bed, 2).models, *second.models, *third.models, *other.models]
    assert len({load_file(each / "model.safetensors")["model.embed_tokens.weight"].sum().item() for each in models}) == 8
