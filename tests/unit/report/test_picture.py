"""Pictures: the formats that people use, few bytes, and colours that follow the reader's theme."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from warmkit.errors import UsageError
from warmkit.report.chart import Chart
from warmkit.report.picture import check_picture, draw, svg

pytest.importorskip("altair")
vl_convert = pytest.importorskip("vl_convert")

ROWS = [{"line": name, "x": x, "y": x * place} for place, name in enumerate(("warp", "sft"), 1) for x in range(9)]
CHART = Chart("c", "Reward & <KL>", ROWS, "x", "y", reference=3.0)


@pytest.mark.parametrize(
    ("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<svg"), ("a.pdf", b"%PDF"), ("a.jpg", b"\xff\xd8")]
)
def test_charts_are_drawn_into_one_file(name: str, magic: bytes, tmp_path: Path) -> None:
    draw([CHART, CHART, CHART], tmp_path / "new" / name)
    assert (tmp_path / "new" / name).read_bytes().startswith(magic)


def test_a_picture_has_titles_sentences_and_the_chart_whole(tmp_path: Path) -> None:
    draw([CHART, CHART], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text.count("Reward &amp; &lt;KL&gt;</text>") == 2
    assert text.count("From x 0 to 8: warp from 0 to 8; sft from 0 to 16.</text>") == 2
    assert text.count('aria-roledescription="point"') == 2 * len(ROWS)
    assert text.count('stroke-dasharray="3,3"') == 2, "the references"


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.html"])
def test_another_format_is_refused_before_anything_is_computed(name: str) -> None:
    with pytest.raises(UsageError, match=r"expected a picture \(.png, .svg, .pdf"):
        check_picture(Path(name))


def test_an_svg_has_few_bytes_and_loses_nothing() -> None:
    from warmkit.report.specification import specification

    small, whole = svg(CHART), vl_convert.vegalite_to_svg(specification(CHART) | {"width": 420})
    assert len(small) < 0.4 * len(whole)
    assert len(re.findall(r'transform="translate\([^"]*\)" d="M', small)) == len(ROWS) + 2, "marks, and those of the legend"
    for text in ("Reward &amp; &lt;KL&gt;", "warp", "sft", "x", "y"):
        assert f">{text}</text>" in small


def test_an_svg_follows_the_readers_theme() -> None:
    small = svg(CHART)
    assert "@media(prefers-color-scheme:dark)" in small
    assert 'fill="currentColor"' in small
    assert 'class="p"' in small
