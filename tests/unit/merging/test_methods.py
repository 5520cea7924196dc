"""Claims about the table of methods, and the properties that its rows share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from warmkit.errors import UsageError
from warmkit.merging.methods import METHODS, Method, find_method

from .golden import GOLDEN, Golden
from .golden_edits import GOLDEN_EDITS
from .properties import PROPERTIES, Property, merge

DOCS = Path(__file__).parents[3] / "docs" / "methods"
LINEAR = {name: method for name, method in METHODS.items() if isinstance(method, Method)}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_test_its_golden_row_and_its_page(name: str) -> None:
    test, page = Path(__file__).with_name(f"test_{name.replace('-', '_')}.py"), DOCS / f"{name}.md"
    assert test.is_file(), f"method {name!r} needs {test.name}"
    assert page.is_file(), f"method {name!r} needs docs/methods/{page.name}"
    golden = "golden.py" if name in LINEAR else "golden_edits.py"
    assert name in {row.method for row in (*GOLDEN, *GOLDEN_EDITS)}, f"method {name!r} needs a row in {golden}"
    assert f"({page.name})" in (DOCS / "README.md").read_text("utf-8"), f"docs/methods/README.md does not link {page.name}"


def test_golden_rows_and_exceptions_name_methods_that_exist() -> None:
    assert {row.method for row in GOLDEN} <= LINEAR.keys()
    assert {row.method for row in GOLDEN_EDITS} <= METHODS.keys() - LINEAR.keys()
    assert set().union(*PROPERTIES.values()) <= LINEAR.keys()


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row.method}: {row.case}")
def test_golden_values(row: Golden) -> None:
    found = LINEAR[row.method].solve(np.array(row.gram, np.float64), np.array(row.shares, np.float64))
    np.testing.assert_allclose(found, row.expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", LINEAR.values(), ids=LINEAR)
@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__.removeprefix("assert_"))
def test_property(holds: Property, method: Method) -> None:
    if method.name in PROPERTIES[holds]:
        with pytest.raises(AssertionError):  # an exception that is none would hide a claim
            holds(method)
    else:
        holds(method)


@pytest.mark.parametrize("method", LINEAR.values(), ids=LINEAR)
def test_a_method_of_no_space_never_looks_at_the_gram_matrix(method: Method) -> None:
    shares = np.array([0.25, 0.75])
    if method.space == "none":
        np.testing.assert_array_equal(method.solve(None, shares), method.solve(np.eye(2), shares))
    else:
        assert not np.array_equal(method.solve(np.ones((2, 2)), shares), method.solve(np.eye(2), shares))


@pytest.mark.parametrize("method", LINEAR.values(), ids=LINEAR)
def test_the_init_enters_where_the_table_says_so(method: Method) -> None:
    models, shares = np.random.default_rng(0).normal(size=(2, 9)), np.array([0.7, 0.5 if method.mix == "scales" else 0.3])
    from_zero, from_one = (merge(method, init, models, shares) for init in (np.zeros(9), np.ones(9)))
    assert np.allclose(from_zero, from_one) is not method.needs_init


def test_names_are_the_keys() -> None:
    assert [method.name for method in METHODS.values()] == list(METHODS)
    assert find_method("slerp") is METHODS["slerp"]


def test_an_unknown_method_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown method 'slrp'; did you mean 'slerp'"):
        find_method("slrp")


def test_an_unknown_method_without_a_near_one_lists_them_all() -> None:
    with pytest.raises(UsageError, match="choose from: lerp, slerp, uniform"):
        find_method("zzz")


def test_only_methods_that_follow_an_arc_meet_antiparallel_vectors() -> None:
    assert {name for name, method in METHODS.items() if method.follows_arc} == {"slerp", "slerp-weights", "karcher"}
