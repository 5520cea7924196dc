"""Every place that models are streamed from has its test and its row on the page about streaming."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmkit.sources.places import PLACES, Place, is_streamed

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("place", PLACES, ids=lambda each: each.name)
def test_a_row_is_complete(place: Place) -> None:
    home = place.open.__module__.rpartition(".")[2]
    assert (ROOT / "tests" / "unit" / "sources" / f"test_{home}.py").is_file(), "its test"
    rows = [each for each in (ROOT / "docs" / "remote.md").read_text().splitlines() if each.startswith("| `")]
    addresses = [f"{each}://" for each in place.schemes if each] if place.schemes else ["any address"]
    assert all(any(address in row for row in rows) for address in addresses), "its row on docs/remote.md"


def test_the_last_row_alone_takes_what_the_others_leave() -> None:
    assert [place.schemes is None for place in PLACES] == [False] * (len(PLACES) - 1) + [True]


@pytest.mark.parametrize(
    ("source", "stream", "streamed"),
    [
        ("https://host/model", False, True),
        ("s3://bucket/model", False, True),
        ("hf://owner/name", False, False),
        ("hf://owner/name", True, True),
        ("owner/name", True, True),
        ("package://name/folder", True, False),
    ],
)
def test_an_address_is_streamed_always_and_the_hub_on_request(source: str, stream: bool, streamed: bool) -> None:
    assert is_streamed(source, stream) is streamed
