"""What fails in passing is asked again, what does not is not, and nothing that comes back shows the key."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from tests.unit.labeling.server import KEY, Reply, Seen, Server, fails, says
from warmkit.common import http_client as module
from warmkit.errors import EndpointError, UsageError
from warmkit.labeling.endpoint import Endpoint
from warmkit.labeling.judge import parse_preference

Connect = Callable[..., Endpoint]
REQUEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
GOOD = says("Preferred: 2")


def ask(endpoint: Endpoint) -> int:
    return endpoint.complete(REQUEST, parse_preference)[1]


def refusal(endpoint: Endpoint) -> str:
    with pytest.raises(EndpointError) as caught:
        ask(endpoint)
    return str(caught.value)


def first(*replies: Reply) -> Callable[[Seen], Reply]:
    """Give these replies in turn, then a good one."""
    return lambda seen: replies[seen.number - 1] if seen.number <= len(replies) else GOOD


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses in place of making them."""
    made: list[float] = []
    monkeypatch.setattr(module.time, "sleep", made.append)
    return made


# ---- the request -------------------------------------------------------------------------------------------------------


def test_the_request_goes_to_chat_completions_with_the_key(server: Server, connect: Connect) -> None:
    server.judge = first()
    assert ask(connect()) == 2
    assert server.seen[0].path == "/v1/chat/completions"
    assert server.seen[0].body == REQUEST
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_without_a_key_no_authorization_is_sent(server: Server, connect: Connect) -> None:
    server.judge = first()
    ask(connect(key_variable="NO_SUCH_VARIABLE"))
    assert "authorization" not in server.seen[0].headers


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions", "/chat/completions/"])
def test_the_base_and_the_full_address_are_the_same(server: Server, connect: Connect, ending: str) -> None:
    assert connect(server.url + ending).url == server.url + "/chat/completions"


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "", "http://", "http://host:port/v1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected an endpoint like"):
        Endpoint(url)


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "http://host/v1?key=secret"])
def test_an_address_with_a_secret_in_it_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint(url)
    assert "secret" not in str(caught.value)


# ---- attempts ----------------------------------------------------------------------------------------------------------


PASSING = {
    "429": fails(429),
    "408": fails(408),
    "500": fails(500),
    "503": fails(503),
    "529": fails(529),
    "nonsense": says("They are both nice."),
    "an undecided answer": says("Preferred: 1 or 2"),
    "an answer cut off": says("The first is better because"),
    "no text": says(None),
    "truncated JSON": Reply(GOOD.body[:-20]),
    "a broken connection": Reply(GOOD.body, length=10_000),
    "no choices": Reply('{"choices": []}'),
    "another document": Reply('["choices"]'),
    "no JSON": Reply("<html>gateway</html>"),
    "nothing": Reply(""),
}


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING.keys())
def test_what_fails_in_passing_is_asked_again(server: Server, connect: Connect, reply: Reply) -> None:
    server.judge = first(reply, reply)
    endpoint = connect()
    assert ask(endpoint) == 2
    assert endpoint.requests == len(server.seen) == 3


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING.keys())
def test_the_attempts_are_counted_and_end(server: Server, connect: Connect, reply: Reply) -> None:
    server.judge = lambda _: reply
    assert "(3 attempts)" in refusal(connect())
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [301, 400, 403, 413, 422])
def test_what_no_retry_mends_is_not_retried_and_other_requests_still_are_sent(
    server: Server, connect: Connect, status: int
) -> None:
    server.judge = first(fails(status, "too long"))
    endpoint = connect()
    assert refusal(endpoint) == f"HTTP {status}: too long"
    assert ask(endpoint) == 2


@pytest.mark.parametrize("status", [401, 402, 404])
def test_a_refusal_of_key_account_or_model_is_not_repeated_for_other_requests(
    server: Server, connect: Connect, status: int
) -> None:
    server.judge = first(fails(status, "no"))
    endpoint = connect()
    assert refusal(endpoint) == refusal(endpoint) == f"HTTP {status}: no"
    assert len(server.seen) == 1


def test_an_endpoint_that_cannot_be_reached_is_tried_by_one_request_only(connect: Connect, pauses: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    endpoint = connect(url)
    said = refusal(endpoint)
    assert f"{url}/chat/completions cannot be reached" in said
    assert refusal(endpoint) == said
    assert len(pauses) == 2


def test_a_server_that_does_not_answer_times_out(server: Server, connect: Connect) -> None:
    release = threading.Event()

    def hang(_: Seen) -> Reply:
        release.wait(30)
        return GOOD

    server.judge = hang
    said = refusal(connect(timeout=0.1, retries=1))
    release.set()
    assert said == "no answer within 0.1 s (2 attempts)"
    assert len(server.seen) == 2


def test_a_server_that_sends_byte_by_byte_times_out() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                with contextlib.suppress(OSError):
                    for _ in range(100):
                        connection.sendall(b" ")
                        stop.wait(0.02)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with Endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}", retries=0, timeout=0.15) as endpoint:
            assert refusal(endpoint) == "no answer within 0.15 s (1 attempt)"
        stop.set()
        thread.join()


# ---- pauses ------------------------------------------------------------------------------------------------------------


def test_pauses_double_with_jitter_below_them(server: Server, connect: Connect, pauses: list[float]) -> None:
    server.judge = lambda _: fails(500)
    refusal(connect(retries=9, backoff=1.0))
    assert len(pauses) == 9
    for pause, longest in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]):
        assert longest / 2 <= pause <= longest


def test_an_answer_of_nonsense_is_asked_for_again_at_once(server: Server, connect: Connect, pauses: list[float]) -> None:
    server.judge = first(says("Both."), says("Neither."))
    assert ask(connect()) == 2
    assert pauses == []


def test_retry_after_in_seconds_is_honoured(server: Server, connect: Connect, pauses: list[float]) -> None:
    server.judge = first(fails(429, Retry_After="7"), fails(503, Retry_After="0.5"))
    assert ask(connect()) == 2
    assert 7 <= pauses[0] < 7.1
    assert 0.5 <= pauses[1] < 0.6


def test_retry_after_as_a_date_is_honoured(server: Server, connect: Connect, pauses: list[float]) -> None:
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    server.judge = first(fails(429, Retry_After=date))
    assert ask(connect()) == 2
    assert 0 < pauses[0] < 101


@pytest.mark.parametrize("value", ["soon", "", "nan", "inf", "-3", "Wed, 99 Foo 2020 00:00:00 GMT"])
def test_a_senseless_retry_after_is_ignored(server: Server, connect: Connect, pauses: list[float], value: str) -> None:
    server.judge = first(fails(429, Retry_After=value))
    assert ask(connect()) == 2
    assert pauses[0] < 0.1


def test_a_retry_after_of_hours_ends_the_run(server: Server, connect: Connect, pauses: list[float]) -> None:
    server.judge = lambda _: fails(429, "slow down", Retry_After="7200")
    endpoint = connect()
    assert refusal(endpoint) == refusal(endpoint) == "HTTP 429: slow down; it asks for a pause of 7200 s"
    assert len(server.seen) == 1
    assert pauses == []


# ---- the key -----------------------------------------------------------------------------------------------------------


ECHOES = {
    "in a message": fails(401, f"bad key {KEY}"),
    "in an error that passes": fails(500, f"bad key {KEY}"),
    "in a string": Reply(json.dumps({"error": f"bad key {KEY}"}), 400),
    "spelled in escapes": Reply('{"detail": "' + "".join(f"\\u{ord(letter):04x}" for letter in KEY) + '"}', 400),
    "with escaped slashes": Reply(KEY.replace("/", "\\/") + "}", 400),
    "as text": Reply(f"Bearer {KEY}", 502),
    "where a long message is cut": fails(400, "x" * 215 + KEY),
    "in truncated JSON": Reply('{"choices": "' + KEY),
    "in nonsense": says(f"Your key is {KEY}"),
    "in content that is no text": says([KEY]),
    "in headers": Reply("", 400, {"X-Key": KEY, "Retry-After": KEY}),
}


@pytest.mark.parametrize("reply", ECHOES.values(), ids=ECHOES.keys())
def test_an_echoed_key_is_struck_out(server: Server, connect: Connect, caplog: pytest.LogCaptureFixture, reply: Reply) -> None:
    caplog.set_level(logging.INFO)
    server.judge = lambda _: reply
    endpoint = connect(retries=1)
    said = refusal(endpoint)
    for text in (said, repr(endpoint), caplog.text):
        assert KEY not in text
        assert KEY[:12] not in text


def test_an_echoed_key_is_struck_out_of_a_usable_answer(server: Server, connect: Connect) -> None:
    server.judge = lambda _: says(f"Key {KEY}.\nPreferred: 2")
    assert connect().complete(REQUEST, parse_preference) == ("Key [key].\nPreferred: 2", 2)


def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_KEY", "sk-1\r\nX-Evil: 1")
    with pytest.raises(UsageError) as caught:
        Endpoint("http://host/v1", key_variable="OWN_KEY")
    assert "OWN_KEY" in str(caught.value)
    assert "sk-1" not in str(caught.value)


def test_a_key_is_read_without_the_line_end_of_its_file(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_KEY", "abc\n")
    server.judge = first()
    ask(connect(key_variable="OWN_KEY"))
    assert server.seen[0].headers["authorization"] == "Bearer abc"


def test_the_clock_of_a_date_in_the_past_asks_for_no_pause() -> None:
    assert module.retry_after(format_datetime(datetime.fromtimestamp(time.time() - 60, timezone.utc), usegmt=True)) == 0


def test_an_endless_answer_is_not_read_to_its_end(server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_ANSWER", 1 << 10)
    server.judge = lambda _: says("x" * 2000)
    assert "an answer of more than" in refusal(connect(retries=0))
