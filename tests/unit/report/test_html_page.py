"""Pages: safe, complete, and in the order that screen readers follow."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report.test_chart import luminance
from warmkit.errors import OutputError
from warmkit.report import html_page as page_module
from warmkit.report.chart import Chart
from warmkit.report.html_page import (
    Badge,
    Grid,
    Listing,
    Page,
    Section,
    Table,
    alternative,
    html,
    is_report,
    literal,
    spans,
    write,
)

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

CHART = Chart("front", "Reward", [{"line": name, "x": x, "y": x} for name in ("a", "b") for x in (1, 2)], "x", "y")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and the texts of scripts apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page(*blocks: Any, **more: Any) -> Elements:
    return Elements(html(Page("Title", "what it is", [Section("Part", list(blocks))], **more)))


def test_paragraphs_know_code_bold_and_links_and_nothing_else() -> None:
    assert spans("**a** `b` [c](https://d.org/?x=1&y=2)") == (
        '<strong>a</strong> <code>b</code> <a href="https://d.org/?x=1&amp;y=2">c</a>'
    )
    assert spans("<b>a</b> & 'b'") == "&lt;b&gt;a&lt;/b&gt; &amp; &#x27;b&#x27;"


@pytest.mark.parametrize("target", ["javascript:alert(1)", "data:text/html,x", "vbscript:x"])
def test_links_to_other_schemes_stay_text(target: str) -> None:
    assert "<a" not in spans(f"[c]({target})")


def test_no_text_becomes_markup() -> None:
    chart = Chart("c", HOSTILE, [{"line": HOSTILE, "x": 1, "y": 2}], "x", "y", caption=HOSTILE, x_title=HOSTILE)
    sections = [Section(HOSTILE, [HOSTILE, Table([HOSTILE], [[HOSTILE]], HOSTILE), Listing(HOSTILE, HOSTILE), chart])]
    elements = Elements(html(Page(HOSTILE, HOSTILE, sections, notes=[HOSTILE])))
    assert elements.of("img") == []
    kinds = [each.get("type") for each in elements.of("script")]
    assert kinds == ["application/json", "module", "module"]


def test_the_data_of_a_chart_come_back_from_the_page() -> None:
    text = html(Page("T", "", [Section("S", [CHART])]))
    (spec,) = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert json.loads(spec)["data"]["values"] == [{"line": row["line"], "x": row["x"], "y": row["y"]} for row in CHART.rows]


def test_the_page_forbids_itself_to_fetch_anything() -> None:
    elements = page(CHART)
    (policy,) = [each["content"] for each in elements.of("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not [each for tag in ("script", "img", "iframe") for each in elements.of(tag) if "src" in each]
    assert [each["href"] for each in elements.of("link")] == ["data:,"]


def test_a_page_without_charts_carries_no_library() -> None:
    assert len(html(Page("T", "", [Section("S", ["text"])]))) < 60_000
    assert len(html(Page("T", "", [Section("S", [Grid([CHART])])]))) > 500_000


def test_headings_are_in_order_and_anchors_are_unique() -> None:
    sections = [Section("One", [CHART]), Section("Two", [CHART, Grid([CHART])], 3), Section("Two", [])]
    elements = Elements(html(Page("T", "", sections)))
    assert [tag for tag, _ in elements.found if re.fullmatch(r"h\d", tag)] == ["h1", "h2", "h3", "h2"]
    anchors = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(set(anchors)) == len(anchors)
    targets = {str(each["href"])[1:] for each in elements.of("a") if str(each["href"]).startswith("#")}
    assert targets <= set(anchors)


def test_tables_name_rows_and_columns_and_verdicts_are_words() -> None:
    text = html(Page("T", "", [Section("S", [Table(["method", "n"], [["WARP", 3], ["SFT", None]], "c")])]))
    scopes = [each.get("scope") for each in Elements(text).of("th")]
    assert scopes == ["col", "col", "row", "row"]
    shown = html(Page("T", "", [Section("S", [Table(["a"], [[Badge("holds", "good")]])])]))
    assert re.search(r'class="badge good">.*holds</span>', shown)


@pytest.mark.parametrize(
    ("cell", "number"),
    [("3", True), ("+35.4 (+28.6 to +42.2)", True), ("0, 1, 2", True), ("12.3 seconds", True), ("3 holds, 8 undecided", False)],
)
def test_only_numbers_are_set_to_the_right_on_one_line(cell: str, number: bool) -> None:
    text = html(Page("T", "", [Section("S", [Table(["a", "b"], [["x", cell]])])]))
    assert ('class="number"' in text) == number


def test_charts_have_a_text_for_who_cannot_see_them() -> None:
    said = alternative(CHART)
    assert "Lines: y against x; y from 1 to 2." in said
    assert "2 lines: a, b." in said
    plots = [each for each in page(CHART).of("div") if each.get("class") == "plot"]
    assert [each["aria-label"] for each in plots] == [said]
    assert [each["role"] for each in plots] == ["img"]


def test_only_a_live_page_loads_itself_again() -> None:
    assert "data-live" not in page("text").of("body")[0]
    live = page("text", live=True, every=2.5)
    assert live.of("body")[0]["data-live"] == "2.5"
    assert "pause" in [each.get("id") for each in live.of("button")]


def test_a_page_is_written_whole_and_known_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.html"
    write(Page("T", "", [Section("S", ["text"])]), file)
    assert is_report(file)
    assert [each.name for each in file.parent.iterdir()] == ["report.html"]
    (tmp_path / "other.html").write_text("<html>")
    assert not is_report(tmp_path / "other.html")
    assert not is_report(tmp_path / "none.html")


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write(Page("T", "", []), tmp_path / "file" / "report.html")


def test_texts_can_be_read_in_both_themes() -> None:
    style = (Path(page_module.__file__).parent / "templates" / "page.css").read_text()
    found = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", style)
    for theme in (1, 2):
        colour = {each[0]: each[theme] for each in found}
        pairs = [(ink, paper) for ink in ("ink", "faint", "link") for paper in ("paper", "card", "code", "note")]
        for ink, paper in [*pairs, *((name, f"{name}-paper") for name in ("good", "bad", "open"))]:
            a, b = sorted((luminance(colour[ink]), luminance(colour[paper])))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (theme, ink, paper)


def test_a_page_shows_the_command_that_wrote_it() -> None:
    shown = html(Page("T", "", [Section("S", [])], command="warmkit report 'a b'"))
    assert "Written by <code>warmkit report &#39;a b&#39;</code>, warmkit " in shown


def test_a_chart_stands_below_its_sentence() -> None:
    assert '<span class="says">From x 1 to 2: a from 1 to 2; b from 1 to 2.</span>' in html(
        Page("T", "", [Section("S", [CHART])])
    )


def test_names_are_never_markup_of_the_page(tmp_path: Path) -> None:
    name = "[x](https://stray.example) **b** `c` </script><script>x"
    shown = html(Page(literal(name), literal(name), [Section(literal(name), [Table(["a"], [[literal(name)]])])]))
    body = shown[shown.index("<body") :]
    assert "stray.example" in body
    assert 'href="https://stray.example"' not in shown
    assert "<strong>b</strong>" not in body
    assert "<code>c</code>" not in body
    assert "</script><script>x" not in shown
    assert not any("\ue000" <= each <= "\ue0ff" for each in shown)
