"""A page as a browser sees it: headless Chromium, whose network leads nowhere."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from warmkit.report.chart import Chart
from warmkit.report.html_page import Grid, Page, Section, Table, write

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: chromium, chromium-browser, google-chrome")

OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows", "--disable-background-timer-throttling"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"),  # no way out
)
ROWS: list[dict[str, Any]] = [
    {"line": name, "x": x, "y": x * (place + 1)} for place, name in enumerate(("warp", "sft")) for x in range(5)
]
CHARTS = [
    Chart("lines", "Lines", ROWS, "x", "y"),
    Chart("bars", "Bars", ROWS, "x", "y", kind="bars", zero=True),
    Chart("histogram", "Histogram", ROWS, "y", "", kind="histogram"),
    Chart("one", "One line alone", [{"y": row["y"]} for row in ROWS], "y", "", kind="histogram"),
    Chart("band", "Band", [{**row, "a": row["y"] - 1, "b": row["y"] + 1} for row in ROWS], "x", "y", low="a", high="b"),
    Chart("paths", "Paths", [*ROWS, *({**row, "run": row["line"]} for row in ROWS)], "x", "y", order="x", thin="run"),
]


@dataclass(frozen=True)
class Seen:
    """The page after its scripts ran, without them, and what they said on the console."""

    dom: str
    console: list[str]


def look(file: Path, height: int = 6000, script: str = "") -> Seen:
    """Open a page in a window that shows all of it; `script` is run by the page itself."""
    if script:
        file.write_text(file.read_text() + f'<script type="module">{script}</script>')
    how = [f"--user-data-dir={file.parent / 'profile'}", f"--window-size=1280,{height}", "--virtual-time-budget=6000"]
    command = [str(BROWSER), *OPTIONS, "--enable-logging=stderr", "--v=0", *how, "--dump-dom", file.as_uri()]
    dom, done = "", None
    for _ in range(30):  # the browser may draw no frame in all its virtual time: Chromium 150 in two of three tries
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        dom = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
        if "<figure" not in dom or "data-drawn" in dom:
            break
    return Seen(dom, [line for line in (done.stderr if done else "").splitlines() if "CONSOLE" in line])


class Figures(HTMLParser):
    """The marks in every figure of a page, by the figure's name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.marks: dict[str, list[str]] = {}
        self._open: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "figure":
            self._open = str(known["id"])
            self.marks[self._open] = []
        elif self._open and "mark-" in str(known.get("class")):
            self.marks[self._open].append(str(known["class"]).split()[0])

    def handle_endtag(self, tag: str) -> None:
        if tag == "figure":
            self._open = None


def written(folder: Path, **more: Any) -> Path:
    file = folder / "report.html"
    table = Table(["a", "b"], [["x", 1]], "A table")
    sections = [Section("Charts", ["Text.", table, CHARTS[0], Grid(CHARTS[1:])]), Section("More", ["Text."])]
    write(Page("A page", "", sections, **more), file)
    return file


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return look(written(tmp_path_factory.mktemp("page")))


def test_every_chart_is_drawn(seen: Seen) -> None:
    marks = Figures(seen.dom).marks
    assert marks.keys() == {chart.name for chart in CHARTS}
    assert seen.dom.count('data-drawn="yes"') == len(CHARTS)
    for name, mark in (("lines", "mark-line"), ("bars", "mark-rect"), ("histogram", "mark-rect"), ("band", "mark-area")):
        assert mark in marks[name], name
    assert {"mark-line", "mark-symbol"} <= set(marks["paths"])


def test_the_console_is_silent_so_nothing_was_fetched_and_nothing_failed(seen: Seen) -> None:
    assert seen.console == []
    assert 'class="failed"' not in seen.dom


def test_a_drawn_chart_is_one_picture_with_a_text_and_a_menu_beside_it(seen: Seen) -> None:
    pictures = re.findall(r'<svg[^>]*class="marks"[^>]*>', seen.dom)
    assert len(pictures) == len(CHARTS)
    assert all('role="img"' in each and "The data follow as a table." in each for each in pictures)
    assert seen.dom.count('<summary aria-label="Save this chart"') == len(CHARTS)
    assert not re.search(r'<div[^>]*class="plot[^>]*role="img"', seen.dom)


def test_a_page_that_fetches_is_noticed(tmp_path: Path) -> None:
    fetched = look(written(tmp_path), script="fetch('https://example.org/').catch(() => {})")
    assert any("Content Security Policy" in line for line in fetched.console)


def test_charts_far_below_wait_until_they_come_near(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    charts = [Chart(f"c{n}", "T", ROWS, "x", "y") for n in range(12)]
    write(Page("Long", "", [Section("S", charts)]), file)
    text = look(file, height=700).dom
    assert 1 <= text.count('data-drawn="yes"') <= 6


def test_all_charts_stand_when_the_page_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    charts = [Chart(f"c{n}", "T", ROWS, "x", "y") for n in range(12)]
    write(Page("Long", "", [Section("S", charts)]), file)
    count = "document.body.dataset.stood = document.querySelectorAll('figure[data-drawn]').length"
    print_it = f"setTimeout(() => {{ dispatchEvent(new Event('beforeprint')); setTimeout(() => {count}); }}, 200)"
    assert 'data-stood="12"' in look(file, height=700, script=print_it).dom


def test_a_colour_that_the_reader_chooses_wins_over_the_systems(tmp_path: Path) -> None:
    dark = look(written(tmp_path), script="document.getElementById('theme').click()").dom
    assert re.search(r'<html[^>]* data-theme="dark"', dark)
    assert re.search(r'<button[^>]*id="theme"[^>]*>Light</button>', dark)


def test_the_table_of_a_chart_is_built_when_it_is_opened(tmp_path: Path, seen: Seen) -> None:
    assert seen.dom.count("<td") == 1, "the page's own table alone"
    opened = look(written(tmp_path), script="document.getElementById('lines-data').open = true").dom
    table = re.search(r'<figure id="lines".*?(<table.*?</table>)', opened, re.DOTALL)
    assert table is not None
    assert [*re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table[1])] == ["Line", "x", "y"]
    assert len(re.findall(r"<tr>", table[1])) == 1 + len(ROWS)


def test_a_live_page_loads_itself_again_and_stays_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write(Page("Live", "", [Section("S", ["text"] * 300)], live=True, every=1), file)
    script = (
        "const loads = Number(sessionStorage.getItem('loads') ?? 0) + 1; sessionStorage.setItem('loads', loads);"
        "if (loads === 1) scrollTo(0, 1234);"
        "setTimeout(() => { document.title = `load ${loads} at ${scrollY}`; }, 100);"
    )
    file.write_text(file.read_text() + f'<script type="module">{script}</script>')
    with staying_open(file) as titles:
        assert wait_for(lambda: "load 3 at 1234" in titles()), titles()


def wait_for(happened: Callable[[], bool], seconds: float = 90) -> bool:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.1)
    return happened()


@contextlib.contextmanager
def staying_open(file: Path) -> Generator[Callable[[], list[str]], None, None]:
    """Keep a page open in real time; yield what returns the titles of the browser's pages."""
    profile = file.parent / "profile"
    command = [str(BROWSER), *OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-port=0", file.as_uri()]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert wait_for((profile / "DevToolsActivePort").exists)
        port = (profile / "DevToolsActivePort").read_text().splitlines()[0]
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30)
        with client:
            yield lambda: [each["title"] for each in client.get("/json/list").json()]
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
