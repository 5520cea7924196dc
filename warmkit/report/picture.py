"""Pictures of charts, drawn without a browser: files for `--plot`, and small SVG for documentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any
from xml.etree import ElementTree

from warmkit.common.whole_files import writing
from warmkit.errors import UsageError
from warmkit.report.chart import Chart
from warmkit.report.sentences import sentence
from warmkit.report.specification import FONT, config, require_charts, specification

FORMATS = (".png", ".svg", ".pdf", ".jpg", ".jpeg")
WIDTH, LETTERS = 420, 60  # pixels of the plot, letters of a line above it
SVG = "http://www.w3.org/2000/svg"
DARK = "@media(prefers-color-scheme:dark){{svg{{color:{0}}}.p{{fill:{1}}}}}"


def check_picture(path: Path, option: str = "--plot") -> None:
    """Refuse a picture that cannot be drawn, before anything is computed.

    Raises:
        UsageError: If the libraries that draw are not installed, or do not know the format.
    """
    require_charts()
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{option} {path}: expected a picture ({', '.join(FORMATS)})")


def draw(charts: Sequence[Chart], path: Path) -> None:
    """Draw charts into one file, two beside each other, each with the sentence of what it shows.

    Raises:
        OutputError: If it cannot be written.
        UsageError: See `check_picture`.
    """
    check_picture(path)
    import vl_convert

    whole = {"concat": [_still(chart) for chart in charts], "columns": 2, "spacing": 40, "config": config("light")}
    whole |= {"resolve": {"scale": dict.fromkeys(("color", "shape", "strokeDash"), "independent")}, "padding": 16}
    kind = {".jpg": "jpeg"}.get(path.suffix.lower(), path.suffix.lower()[1:])
    convert = getattr(vl_convert, f"vegalite_to_{kind}")
    content = convert(whole, **({"scale": 2} if kind in ("png", "jpeg") else {}))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if kind == "svg" else content)


def _still(chart: Chart) -> dict[str, Any]:
    """Return a chart as a part of a picture: data of its own, and its words above it."""
    spec = specification(chart, width=WIDTH)
    del spec["config"], spec["usermeta"], spec["data"]["name"], spec["$schema"]
    words = wrap(f"{sentence(chart)} {chart.caption}".replace("**", ""), LETTERS)
    return spec | {"title": {"text": wrap(chart.title, LETTERS - 8), "subtitle": words}}


def svg(chart: Chart) -> str:
    """Draw a chart as an SVG of few bytes, whose colours follow the reader's theme.

    Raises:
        UsageError: If Altair or vl-convert is not installed.
    """
    require_charts()
    import vl_convert

    plain = {"title": wrap(chart.title, LETTERS - 8), "config": config("page") | {"aria": False}}
    spec = specification(chart, "page", width=WIDTH) | plain
    return _small(vl_convert.vegalite_to_svg(spec))


# ---- SVG of few bytes ------------------------------------------------------------------------------------------------

INHERITED = ("fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray", "font-size", "text-anchor")
IDLE = {"opacity": "1", "stroke-opacity": "1", "fill-opacity": "1", "transform": "translate(0,0)", "stroke-dasharray": ""}
DROPPED = ("class", "role", "pointer-events", "font-family", "stroke-miterlimit", "version")


def _small(text: str) -> str:
    """Return a drawing of Vega's without what nobody sees: names of parts, empty groups, digits, what siblings repeat."""
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(text)  # noqa: S314 (our own drawing)
    _clean(root)
    light, dark = config("light"), config("dark")
    root.set("color", light["title"]["color"])
    root.set("font-family", FONT)
    style = ElementTree.Element(f"{{{SVG}}}style")
    style.text = DARK.format(dark["title"]["color"], dark["background"])
    paper = ElementTree.Element(
        f"{{{SVG}}}rect", {"class": "p", "width": "100%", "height": "100%", "fill": light["background"]}
    )
    root[:] = [style, paper, *(each for each in root if each.get("fill") != "transparent")]
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _clean(element: ElementTree.Element) -> None:
    if element.tag.endswith("}defs"):  # what clips is drawn nowhere
        return
    for name, value in list(element.attrib.items()):
        if name in DROPPED or name.startswith("aria-") or IDLE.get(name) == value:
            del element.attrib[name]
        elif name in ("d", "transform", "x", "y", "x2", "y2", "cx", "cy"):
            element.set(
                name, re.sub(r"\d+\.\d{2,}(e-\d+)?", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), value)
            )
    for child in element:
        _clean(child)
    element[:] = [kept for child in element for kept in _flat(child)]
    for name in INHERITED if element.tag.endswith("}g") and len(element) > 1 else ():
        values = {child.get(name) for child in element}
        if len(values) == 1 and None not in values:
            element.set(name, values.pop() or "")
            for child in element:
                del child.attrib[name]


def _flat(element: ElementTree.Element) -> list[ElementTree.Element]:
    """Return what stays of an element: nothing of what draws nothing, the children of a group that says nothing."""
    kind = element.tag.rpartition("}")[2]
    if element.get("display") == "none" or (kind == "path" and not {"fill", "stroke"} & element.attrib.keys()):
        return []
    if kind == "g" and (not element.attrib or not len(element)):
        return list(element)
    return [element]
