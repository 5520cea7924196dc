"""Connections to HTTP servers that are kept open between requests and shared by threads."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import socket
import string
import threading
import weakref
from collections.abc import Generator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from warmkit._version import __version__
from warmkit.common.addresses import without_secrets
from warmkit.errors import TransferError
from warmkit.sources.remote_file import PassingError

TIMEOUT = 30.0  # seconds without a byte
SHORT = 1 << 14  # bytes of an answer that are read although nobody wants them

Response = http.client.HTTPResponse


def quoted(url: str) -> SplitResult:
    """Return the parts of an address, letters beyond ASCII in path and query quoted as browsers do.

    Raises:
        ValueError: If it is none.
    """
    parts = urlsplit(url)
    return parts._replace(path=quote(parts.path, safe=string.punctuation), query=quote(parts.query, safe=string.punctuation))


class Connections:
    """Idle connections by server, and requests over them. Proxies are those of the environment."""

    def __init__(self) -> None:
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._open)

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Generator[Response, None, None]:
        """Ask for `url`; the connection is used again if the answer was read to its end.

        Raises:
            PassingError: If the server cannot be reached or gives no answer.
        """
        address = quoted(url)
        connection, response = self._ask(address, headers)
        try:
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise PassingError(f"the connection broke: {_said(error)}") from None
        finally:
            _drain(response)
            if response.isclosed() and connection.sock is not None:
                with self._lock:
                    self._idle.setdefault(_server(address), []).append(connection)
            else:
                response.close()
                self._forget(connection)

    def _ask(self, address: SplitResult, headers: Mapping[str, str]) -> tuple[http.client.HTTPConnection, Response]:
        own = {"User-Agent": f"warmkit/{__version__}", "Accept-Encoding": "identity", **headers}
        target = (address.path or "/") + (f"?{address.query}" if address.query else "")
        if address.scheme == "http" and (proxy := _proxy(address)):
            target, own = f"http://{address.netloc}{target}", {**own, **_credentials(proxy)}
        while True:
            connection, fresh = self._take(address)
            try:
                connection.request("GET", target, headers=own)
                return connection, connection.getresponse()
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._forget(connection)
                if isinstance(error, _certificate_errors()):
                    raise TransferError(
                        f"{address.hostname}: its certificate is not accepted: {_said(error)}; SSL_CERT_FILE can name the file "
                        "of your own authority"
                    ) from None
                if isinstance(error, (ValueError, http.client.InvalidURL)):
                    raise TransferError(f"{address.hostname}: cannot be asked: {_said(error)}") from None
                if fresh:  # one that was idle may have been closed by the server, which says nothing
                    raise PassingError(f"{address.netloc} gives no answer: {_said(error)}") from None

    def _take(self, address: SplitResult) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            idle = self._idle.get(_server(address))
            if idle:
                return idle.pop(), False
            connection = self._connect(address)
            self._open.add(connection)
        return connection, True

    def _connect(self, address: SplitResult) -> http.client.HTTPConnection:
        proxy = _proxy(address)
        where = proxy or address
        assert where.hostname is not None
        if address.scheme == "http":
            return http.client.HTTPConnection(where.hostname, where.port, timeout=TIMEOUT)
        connection = http.client.HTTPSConnection(where.hostname, where.port, timeout=TIMEOUT, context=self._tls)
        if proxy is not None:
            connection.set_tunnel(address.hostname or "", address.port or 443, _credentials(proxy))
        return connection

    @cached_property
    def _tls(self) -> Any:
        import httpx

        return httpx.create_ssl_context()  # with the certificates that huggingface_hub accepts too

    def _forget(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        """End all requests under way and close all connections."""
        with self._lock:
            idle, self._idle = self._idle, {}
            for connection in [each for several in idle.values() for each in several]:
                connection.close()
                self._open.discard(connection)
            for connection in self._open:  # another thread is reading from it: let its read fail
                with contextlib.suppress(OSError, AttributeError):
                    connection.sock.shutdown(socket.SHUT_RDWR)


def _proxy(address: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for a server."""
    named = getproxies().get(address.scheme)
    if not named or proxy_bypass(address.hostname or ""):
        return None
    return urlsplit(named if "://" in named else f"http://{named}")


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _close_all(connections: set[http.client.HTTPConnection]) -> None:
    for connection in connections:
        connection.close()


def _drain(response: Response) -> None:
    """Read the rest of a short answer, so that its connection can be used again."""
    if not response.isclosed() and response.length is not None and response.length <= SHORT:
        with contextlib.suppress(OSError, http.client.HTTPException):
            response.read()


def _server(address: SplitResult) -> str:
    return f"{address.scheme}://{address.netloc}"


def _certificate_errors() -> tuple[type[Exception], ...]:
    import ssl

    return (ssl.SSLCertVerificationError,)


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT:g} s"
    if isinstance(error, OSError) and error.errno and error.strerror:
        return os.strerror(error.errno) if error.errno > 0 else error.strerror
    return without_secrets(str(error).splitlines()[0])[:200] if str(error) else type(error).__name__
