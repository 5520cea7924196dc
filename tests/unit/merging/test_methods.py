"""Claims about the table of methods, and the properties that its rows share."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from tests.docs.cli_page import commands
from warmkit.errors import UsageError
from warmkit.merging.edits import Edit
from warmkit.merging.methods import METHODS, Method, find_method, parameters_by_name
from warmkit.merging.parameters import Within, own_parameters
from warmkit.merging.types import Coefficients
from warmkit.recipes.recipe import MergeSection

from .edits import REFERENCES
from .golden import GOLDEN, Golden
from .golden_edits import GOLDEN_EDITS
from .properties import PROPERTIES, Property, merge

DOCS = Path(__file__).parents[3] / "docs" / "methods"
INDEX = (DOCS / "README.md").read_text("utf-8")
HEADINGS = ("Use", "When to use it", "Special cases", "Other tools", "Reference")
LINEAR = {name: method for name, method in METHODS.items() if not method.edits}


def headings(page: Path) -> set[str]:
    return set(re.findall(r"^## (.+)$", page.read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_test_its_golden_row_and_its_page(name: str) -> None:
    test, page = Path(__file__).with_name(f"test_{name.replace('-', '_')}.py"), DOCS / f"{name}.md"
    golden = "golden.py" if name in LINEAR else "golden_edits.py"
    formula = re.search(r"^def reference\(", test.read_text("utf-8"), re.MULTILINE) if test.is_file() else None
    places = {
        "a line `Source: ...` in the docstring of its function": "\nSource: " in (inspect.getdoc(METHODS[name].function) or ""),
        f"tests/unit/merging/{test.name}": test.is_file(),
        "in it `reference(init, models, shares)`, the formula on whole vectors": name not in LINEAR or formula,
        "a row in REFERENCES of tests/unit/merging/edits.py": name in LINEAR or name in REFERENCES,
        f"a row in tests/unit/merging/{golden}": name in {row.method for row in (*GOLDEN, *GOLDEN_EDITS)},
        f"docs/methods/{page.name}": page.is_file(),
        f"in it the headings {', '.join(HEADINGS)}": page.is_file() and set(HEADINGS) <= headings(page),
        f"a row that links {page.name} in a table of docs/methods/README.md": f"({page.name})" in INDEX,
    }
    lacks = [place for place, there in places.items() if not there]
    assert not lacks, "\n- ".join([f"method {name!r} needs", *lacks])


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
        return
    try:
        holds(method)
    except AssertionError as error:
        where = "if its formula means it, name it as an exception in PROPERTIES of tests/unit/merging/properties.py"
        raise AssertionError(f"{method.name} breaks {holds.__name__}; {where}") from error


@pytest.mark.parametrize("method", LINEAR.values(), ids=LINEAR)
def test_a_method_looks_at_the_gram_matrix_exactly_where_it_asks_for_it(method: Method) -> None:
    shares, orthogonal = np.array([0.25, 0.75]), np.eye(2)
    if method.space == "none":
        np.testing.assert_array_equal(method.solve(None, shares), method.solve(orthogonal, shares))
    else:
        expected, others = method.solve(orthogonal, shares), (np.ones((2, 2)), np.diag([1.0, 4.0]))
        same = all(np.array_equal(method.solve(gram, shares), expected) for gram in others)
        assert not same, "it takes `gram`, which costs a reading, and depends neither on angles nor on norms"


@pytest.mark.parametrize("method", LINEAR.values(), ids=LINEAR)
def test_the_init_enters_where_the_table_says_so(method: Method) -> None:
    models, shares = np.random.default_rng(0).normal(size=(2, 9)), np.array([0.7, 0.5 if method.mix == "scales" else 0.3])
    from_zero, from_one = (merge(method, init, models, shares) for init in (np.zeros(9), np.ones(9)))
    depends = not np.allclose(from_zero, from_one)
    row = "coefficients that do not sum to 1 need beyond=True in its row of warmkit/merging/methods.py, others do without"
    assert depends == method.needs_init, (
        f"{method.name}: the result {'depends' if depends else 'does not depend'} on the init; {row}"
    )


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
    assert {name for name, method in METHODS.items() if method.follows_arc} == {
        "slerp",
        "slerp-weights",
        "karcher",
        "multislerp",
    }


@pytest.mark.parametrize("name", parameters_by_name())
def test_a_parameter_is_declared_by_its_methods_and_told_everywhere(name: str) -> None:
    methods = parameters_by_name()[name]
    assert any(each.words for each in methods.values()), f"no docstring says what {name} is"
    assert len({(each.kind, each.per_model) for each in methods.values()}) == 1, "one option, one kind"
    for method, each in methods.items():
        assert each.within.holds(each.default), f"{method}: the default of {name} is out of its own range"
    option = next(each for each in commands()["merge"].params if each.name == name)
    assert len(methods) > 2 or all(method in option.help for method in methods), (
        "who has it is named, whose docstring refers too"
    )
    assert any(words.rstrip(".").lower() in option.help.lower() for words in (each.words for each in methods.values()) if words)
    assert name in {each.name for each in dataclasses.fields(MergeSection)}


def test_a_parameter_is_read_from_its_signature_and_docstring() -> None:
    def toy(
        scales: Coefficients,
        share: Annotated[Sequence[float], Within(0.0, 1.0, above=True)] = (0.5,),
        rounds: Annotated[int, Within(1)] = 3,
        signed: bool = False,
    ) -> Edit:
        """Return a toy.

        Args:
            scales: [M], the weights.
            share: [M], the share of everything
                that is kept.
            rounds: How many.
        """
        return lambda elements: pytest.fail("only its signature is read")

    share, rounds, signed = own_parameters(toy)
    assert (share.name, share.default, share.per_model, share.words) == (
        "share",
        0.5,
        True,
        "Share of everything that is kept.",
    )
    assert (rounds.kind, rounds.words, str(rounds.within)) == (int, "How many.", " at least 1")
    assert (signed.kind, signed.default, signed.words) == (bool, False, "")
    assert share.check(0.2, 3) == [0.2] * 3
    for value, said in ((0.0, "above 0 and at most 1"), ([0.1, 0.2], "3, one per model"), ("x", "a finite number")):
        with pytest.raises(UsageError, match=said):
            share.check(value, 3)
    with pytest.raises(UsageError, match=r"a whole number at least 1, found 0\.5"):
        rounds.check(0.5, 3)


def test_a_method_of_coefficients_may_have_a_parameter_of_its_own() -> None:
    def toy(shares: Coefficients, stretch: Annotated[float, Within(0.0, 2.0)] = 1.0) -> Coefficients:
        return stretch * shares

    method, shares = Method("toy", toy, "stretched mean", "none"), np.array([0.25, 0.75])
    np.testing.assert_array_equal(method.solve(None, shares), shares)
    np.testing.assert_array_equal(method.solve(None, shares, own={"stretch": 0.5}), shares / 2)


def test_a_parameter_without_a_default_is_no_declaration() -> None:
    def toy(share: float) -> Edit:
        return lambda elements: pytest.fail("only its signature is read")

    with pytest.raises(TypeError, match="toy: share: expected a default"):
        own_parameters(toy)
