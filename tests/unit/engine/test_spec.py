"""What a merge was asked for, down to the method's own parameters."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pytest

from warmkit.engine.spec import merge_spec
from warmkit.errors import UsageError
from warmkit.merging.methods import METHODS, Method
from warmkit.merging.parameters import Within
from warmkit.merging.types import Coefficients


def stretched(shares: Coefficients, stretch: Annotated[float, Within(0.0, 2.0)] = 1.0) -> Coefficients:
    return stretch * shares


@pytest.fixture(autouse=True)
def method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "stretched", Method("stretched", stretched, "stretched mean", "none"))


def test_a_parameter_of_a_method_of_coefficients_reaches_it_and_the_manifest() -> None:
    spec = merge_spec("stretched", 2, stretch=0.5)
    np.testing.assert_array_equal(spec.solve("any", None), [[0.25, 0.25]])
    assert spec.parameters["stretch"] == 0.5


def test_it_has_its_default_where_it_is_not_given() -> None:
    np.testing.assert_array_equal(merge_spec("stretched", 2).solve("any", None), [[0.5, 0.5]])


def test_a_value_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="stretch must be a finite number at least 0 and at most 2, found 3"):
        merge_spec("stretched", 2, stretch=3.0)
