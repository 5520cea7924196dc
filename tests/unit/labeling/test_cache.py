"""Answers outlive the process, and what is no cache is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import forks
from warmkit.errors import OutputError
from warmkit.labeling.cache import Cache, key_of

# tells its parent after every answer, and never ends by itself
WRITER = """
import sys
from warmkit.labeling.cache import Cache
cache = Cache(sys.argv[1])
number = 0
while True:
    cache.put(str(number), "x" * 1000)
    print(number, flush=True)
    number += 1
"""


def test_an_answer_is_there_for_the_next_process(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        cache.put("key", "answer")
    with Cache(tmp_path / "cache") as cache:
        assert cache.get("key") == "answer"
        assert cache.get("another key") is None


def test_a_kill_loses_no_answer_that_was_stored(tmp_path: Path) -> None:
    process = forks.Popen([sys.executable, "-c", WRITER, tmp_path / "cache"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        last = [int(said.readline()) for _ in range(20)][-1]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with Cache(tmp_path / "cache") as cache:
        assert all(cache.get(str(number)) for number in range(last + 1))


def test_threads_share_a_cache(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        threads = [threading.Thread(target=cache.put, args=(str(number), "answer")) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(cache.get(str(number)) == "answer" for number in range(16))


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as one, Cache(tmp_path / "cache") as other:
        one.put("key", "answer")
        assert other.get("key") == "answer"


def test_the_key_depends_on_address_model_and_request() -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    keys = {
        key_of("http://a", request),
        key_of("http://b", request),
        key_of("http://a", {**request, "model": "n"}),
        key_of("http://a", {**request, "temperature": 0}),
    }
    assert len(keys) == 4
    assert key_of("http://a", dict(reversed(request.items()))) in keys


def test_what_is_no_cache_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("something else " * 100)
    with pytest.raises(OutputError, match=r"notes\.txt: cannot be used as the cache of answers: file is not a database"):
        Cache(path)
    assert path.read_text() == "something else " * 100


def test_a_cache_in_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="unable to open"):
        Cache(tmp_path / "missing" / "cache")


def test_a_cache_that_was_closed_says_so(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.close()
    with pytest.raises(OutputError, match="closed"):
        cache.put("key", "answer")
