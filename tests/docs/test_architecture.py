"""The drawing of the house shows every room, in the order that `lint-imports` holds the imports to."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FLOORS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]

# Files of one name are one thing on several floors: a command, what it calls, its recipe or its report.
ONE_THING = {
    *(
        "average",
        "compare",
        "demo",
        "docstrings",
        "ema",
        "front",
        "label",
        "liti",
        "merge",
        "methods",
        "push",
        "reproduce",
        "search",
        "verify",
    ),
    *("warm", "warp"),
}


def test_the_drawing_is_the_house() -> None:
    drawing = (ROOT / "docs" / "architecture.md").read_text().partition("```text\n")[2].partition("```")[0]
    drawn = [name.rstrip("/").removesuffix(".py") for name in re.findall(r"^(\w+(?:/|\.py)) ", drawing, re.MULTILINE)]
    package = ROOT / "warmkit"
    rooms = {each.name for each in package.iterdir() if (each / "__init__.py").is_file()}
    assert set(drawn) >= rooms, "docs/architecture.md: a room needs its line in the drawing"
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split(" | ")}
    floors = [floor[room] for room in drawn]
    assert floors == sorted(floors), "docs/architecture.md: the drawing has the order of `layers` in pyproject.toml"


def test_imports_point_down_and_nowhere_in_a_circle() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_two_unlike_files_have_one_name() -> None:
    homes = defaultdict[str, list[Path]](list)
    for file in (ROOT / "warmkit").rglob("*.py"):
        if file.name not in ("__init__.py", "__main__.py"):
            homes[file.stem].append(file)
    twice = {name for name, files in homes.items() if len(files) > 1}
    assert twice == ONE_THING, "files of one name in two rooms: rename one, or name it in ONE_THING here if they are one thing"
