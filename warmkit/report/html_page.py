"""Pages: sections of paragraphs, tables and charts, written into one HTML file that needs nothing else.

The drawing library lies in the file, and a policy in its head forbids the page to fetch anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Literal

from warmkit._version import __version__
from warmkit.common.whole_files import write_whole, writing
from warmkit.report.chart import Chart, line_names
from warmkit.report.sentences import sentence
from warmkit.report.specification import config, require_charts, specification

Tone = Literal["good", "bad", "open"]
GENERATOR = '<meta name="generator" content="warmkit '
SPAN = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(((?:https?://|#|\.{0,2}/)?[^)\s]+)\)")


_SIGNS = "`*["
_HIDDEN = {ord(each): chr(0xE000 + ord(each)) for each in _SIGNS}  # places that no font and no language uses
_SHOWN = {0xE000 + ord(each): each for each in _SIGNS}


@dataclass(frozen=True)
class Badge:
    """A verdict in a table: its text says it, the colour repeats it."""

    text: str
    tone: Tone = "open"


Cell = str | int | float | Badge | None


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows, columns of numbers are set to the right.

    Attributes:
        columns: Their headings; none for a list of names and values.
        rows: Cells may hold `code`, **bold** and links, or a badge; None is an empty cell.
        caption: Above it.
        folded: Whether it is shown only on request, under its caption.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Listing:
    """Text shown as it is, such as a recipe, under its caption on request."""

    caption: str
    text: str


@dataclass(frozen=True)
class Grid:
    """Charts side by side where there is room, lower than alone."""

    charts: Sequence[Chart]


Block = str | Table | Chart | Grid | Listing


def charts_in(blocks: Sequence[Block]) -> list[Chart]:
    """Return the charts among blocks."""
    found = [chart for block in blocks for chart in (block.charts if isinstance(block, Grid) else [block])]
    return [chart for chart in found if isinstance(chart, Chart)]


@dataclass(frozen=True)
class Section:
    """A part of a page; a paragraph may hold `code`, **bold** and [links](https://...).

    Attributes:
        title: Its heading.
        blocks: In their order.
        level: Of the heading.
        anchor: What links lead to, where one does; unique on the page.
    """

    title: str
    blocks: Sequence[Block] = ()
    level: int = 2
    anchor: str = ""


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: Of the page.
        subtitle: One line of what it is about.
        sections: In their order; levels may rise by one at a time.
        live: Whether the run goes on: the page loads itself again every few seconds.
        every: Seconds between two loads.
        notes: Paragraphs below the subtitle that a reader must not miss.
        command: That wrote the page, where one did.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    live: bool = False
    every: float = 5.0
    notes: Sequence[str] = field(default=())
    command: str = ""


def write(page: Page, path: Path) -> None:
    """Write a page whole or not at all.

    Raises:
        OutputError: If it cannot be written.
        UsageError: If the libraries that draw are not installed.
    """
    content = html(page).encode()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def is_report(path: Path) -> bool:
    """Say whether a file is a page that warmkit wrote, which it may replace."""
    try:
        with path.open("rb") as file:
            return GENERATOR.encode() in file.read(2048)
    except OSError:
        return False


def html(page: Page) -> str:
    """Return the page as one HTML document.

    Raises:
        UsageError: If the libraries that draw are not installed.
    """
    require_charts()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("warmkit.report", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"spans": spans, "cell": _cell}
    sections = [_section(section, number) for number, section in enumerate(_distinct(page.sections))]
    charts = any(block["kind"] in ("chart", "grid") for section in sections for block in section["blocks"])
    text: str = environment.get_template("page.html").render(
        page=page,
        sections=sections,
        version=__version__,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        library=_library() if charts else "",
        style=_template("page.css"),
        script=_template("page.js"),
    )
    return text.translate(_SHOWN)


def literal(value: Any) -> Any:
    """Return names, or a document full of them, whose signs of code, bold and links are only shown: `html` puts them back.

    Examples:
        >>> spans(literal("[a](https://b)")) == "[a](https://b)", literal(["a", 1])
        (False, ['a', 1])
    """
    if isinstance(value, str):
        return value.translate(_HIDDEN)
    if isinstance(value, dict):
        return {literal(key): literal(each) for key, each in value.items()}
    return [literal(each) for each in value] if isinstance(value, list) else value


def spans(text: str) -> str:
    """Write a paragraph as HTML: `code`, **bold** and links are known, everything else is text.

    Examples:
        >>> spans("1 < 2, **so** run `warmkit merge`")
        '1 &lt; 2, <strong>so</strong> run <code>warmkit merge</code>'
    """
    parts: list[str] = []
    end = 0
    for match in SPAN.finditer(text):
        parts += [escape(text[end : match.start()]), _span(match)]
        end = match.end()
    return "".join([*parts, escape(text[end:])])


def _span(match: re.Match[str]) -> str:
    code, bold, label, target = match.groups()
    if code is not None:
        return f"<code>{escape(code)}</code>"
    if bold is not None:
        return f"<strong>{escape(bold)}</strong>"
    if ":" in target and not target.startswith(("http://", "https://")):
        return escape(match.group(0))  # no other scheme: javascript: would run
    return f'<a href="{escape(target)}">{escape(label)}</a>'


def _cell(value: Cell) -> str:
    if isinstance(value, Badge):
        mark = {"good": "✓", "bad": "✗", "open": "○"}[value.tone]
        return f'<span class="badge {value.tone}"><span aria-hidden="true">{mark}</span> {escape(value.text)}</span>'
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else spans(str(value))


# ---- what the template sees ----------------------------------------------------------------------------------------


def _distinct(sections: Sequence[Section]) -> list[Section]:
    """Give charts of one name different ones: anchors are unique."""
    seen: dict[str, int] = {}

    def named(chart: Chart) -> Chart:
        name = slug(chart.name)
        seen[name] = seen.get(name, 0) + 1
        return replace(chart, name=name if seen[name] == 1 else f"{name}-{seen[name]}")

    def renamed(block: Block) -> Block:
        if isinstance(block, Grid):
            return Grid([named(chart) for chart in block.charts])
        return named(block) if isinstance(block, Chart) else block

    return [replace(each, blocks=[renamed(block) for block in each.blocks]) for each in sections]


def slug(text: str) -> str:
    """Return a text as an anchor: lower-case letters, digits and dashes.

    Examples:
        >>> slug("KL to the SFT model, nats")
        'kl-to-the-sft-model-nats'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


def _section(section: Section, number: int) -> dict[str, Any]:
    return {
        "title": section.title,
        "level": min(max(section.level, 2), 4),
        "anchor": section.anchor or f"s{number + 1}-{slug(section.title)}",
        "blocks": [_block(block) for block in section.blocks],
    }


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, str):
        return {"kind": "text", "text": block}
    if isinstance(block, Listing):
        return {"kind": "listing", "caption": block.caption, "text": block.text}
    if isinstance(block, Table):
        kinds = [_kind([row[place] for row in block.rows]) for place, _ in enumerate(block.columns)]
        return {"kind": "table", "table": block, "kinds": kinds}
    if isinstance(block, Grid):
        return {"kind": "grid", "charts": [_figure(chart, compact=True) for chart in block.charts]}
    return {"kind": "chart", "charts": [_figure(block)]}


def _figure(chart: Chart, compact: bool = False) -> dict[str, Any]:
    """Return a chart with its words and its specification, without what all charts of a page share."""
    spec = specification(chart, "page", compact)
    del spec["config"], spec["$schema"]
    return {"chart": chart, "says": sentence(chart), "alt": alternative(chart), "spec": _script(spec)}


def alternative(chart: Chart) -> str:
    """Say in words what a chart shows: kind, axes, lines and ranges."""
    lines, what = (
        line_names(chart),
        {"bars": "Bars", "points": "Points", "histogram": "Histogram", "lines": "Lines"}[chart.kind],
    )
    x, y = chart.x_title or chart.x, chart.y_title or chart.y
    words = f"{what}: {x}." if chart.kind == "histogram" else f"{what}: {y} against {x}{_range(chart, chart.y, y)}."
    if len(lines) > 1:
        shown = ", ".join(lines[:8]) + (f" and {len(lines) - 8} more" if len(lines) > 8 else "")
        words += f" {len(lines)} {'groups' if chart.kind != 'lines' else 'lines'}: {shown}."
    return f"{chart.title}. {words} The data follow as a table."


def _range(chart: Chart, column: str, title: str) -> str:
    values = [row[column] for row in chart.rows if isinstance(row.get(column), (int, float))]
    return f"; {title} from {min(values):.4g} to {max(values):.4g}" if values else ""


_LINK = re.compile(r"(?<=\])\([^)]*\)")


def _kind(cells: Sequence[Cell]) -> str:
    """Return the class of a column: numbers are set to the right, long texts get room."""
    texts = [_LINK.sub("", str(each)) for each in cells if each not in (None, "") and not isinstance(each, Badge)]
    if texts and all(map(_is_number, texts)):
        return "number"
    return "long" if any(len(text) > 48 for text in texts) else ""


def _is_number(text: str) -> bool:
    """Say whether a cell is a number, perhaps with a unit or an interval; `3 holds, 8 undecided` is a text."""
    return bool(re.match(r"[-+−]?\d", text)) and len(re.findall(r"[^\W\d_]{2,}", text)) <= 1


def _script(value: Any) -> str:
    """Return JSON that can stand inside a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, and the looks of the charts."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]
    assert "</script" not in bundle.lower()
    return f"{bundle}\nwindow.warmkitConfig = {_script(config('page'))};"


@cache
def _template(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
