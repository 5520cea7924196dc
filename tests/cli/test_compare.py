"""`warmkit compare --plot`: what cannot be drawn is refused before a byte is read."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Call

pytest.importorskip("vl_convert")


@pytest.mark.parametrize(
    ("models", "picture", "said"),
    [
        (["a"], "x.png", "--plot compares pairs: give at least two models"),
        (["a", "b"], "x.xyz", "--plot x.xyz: expected a picture"),
    ],
)
def test_what_cannot_be_drawn_is_refused_first(models: list[str], picture: str, said: str, call: Call) -> None:
    assert said in call("compare", *models, "--init", "none", "--plot", picture, code=2).stderr
