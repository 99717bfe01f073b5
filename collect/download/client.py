"""Requests over HTTP that never wait for ever, whatever the server does.

Python's own client is enough: it uses the proxies of the environment, and what a library would add (connection pools,
parallel requests) does not help with a few large files one after another. What it lacks is added here: a connection
must keep bringing data, headers and trailers must end, and redirects are followed only a few times, within http and
https, without reading their content.
"""

import http.client
import io
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from collect.printable import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SLOWEST_BYTES = 1024
"""Bytes that a connection has to bring within each time limit."""
MOST_HEADER_BYTES = 1 << 20
MOST_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Answer(http.client.HTTPResponse):
    """An answer that is read at a bounded pace, block by block."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._paced = _PacedReader(sock)
        self.fp = io.BufferedReader(self._paced)

    def begin(self) -> None:
        """Read status and headers."""
        self._paced.allowance = MOST_HEADER_BYTES
        super().begin()

    def read_block(self, most_bytes: int) -> bytes:
        """Return what has arrived of the body, at most `most_bytes`; empty at its end."""
        self._paced.allowance = most_bytes + MOST_HEADER_BYTES
        return self.read1(most_bytes)


class _PacedReader(io.RawIOBase):
    """The bytes of a connection, which have to keep coming: `SLOWEST_BYTES` within each time limit of the socket."""

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self._raw: io.RawIOBase = sock.makefile("rb", buffering=0)
        self._limit_s: float = sock.gettimeout()
        self._deadline = time.monotonic() + self._limit_s
        self._brought = 0
        self.allowance = MOST_HEADER_BYTES
        """Bytes that may be read before the caller checks them."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"less than {SLOWEST_BYTES:,} bytes in {self._limit_s:g} s")
        if self.allowance <= 0:
            raise http.client.HTTPException("headers without end")
        self._socket.settimeout(left)
        n_bytes = self._raw.readinto(memoryview(buffer)[: self.allowance]) or 0
        self._socket.settimeout(self._limit_s)
        self.allowance -= n_bytes
        self._brought += n_bytes
        if self._brought >= SLOWEST_BYTES:
            self._brought, self._deadline = 0, time.monotonic() + self._limit_s
        return n_bytes

    def close(self) -> None:
        self._raw.close()
        super().close()


class _HttpConnection(http.client.HTTPConnection):
    response_class = Answer


class _HttpsConnection(http.client.HTTPSConnection):
    response_class = Answer


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, req)


def ask(url: str, method: str, headers: Mapping[str, str], timeout_s: float) -> Answer:
    """Send a request, and follow its redirects.

    Args:
        url: http or https address.
        method: GET or HEAD.
        headers: of the request.
        timeout_s: seconds within which each step must make progress.

    Raises:
        HTTPError: the server refuses.
        OSError: there is no connection, or it fails.
        HTTPException: the answer makes no sense, or its redirects lead nowhere.
    """
    address = url
    sent = {"User-Agent": "video-sae", "Accept-Encoding": "identity", **headers}
    for _ in range(MOST_REDIRECTS + 1):
        try:
            request = urllib.request.Request(address, method=method, headers=sent)
            return cast("Answer", _opener().open(request, timeout=timeout_s))
        except urllib.error.HTTPError as error:
            if error.code not in REDIRECTS:
                raise
            error.close()
            address = _redirected(address, error.headers.get("Location"))
        except (ValueError, OverflowError) as error:  # hosts, ports and proxies that cannot be
            raise http.client.HTTPException(f"{printable(address)} is not an address: {error}") from None
    raise http.client.HTTPException(f"more than {MOST_REDIRECTS} redirects")


def _opener() -> urllib.request.OpenerDirector:
    """An opener for http and https, not for ftp, file or data; made each time, as the environment sets the proxies."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _Http(),
        _Https(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _redirected(address: str, location: str | None) -> str:
    if not location:
        raise http.client.HTTPException("a redirect that does not say where")
    try:
        target = urllib.parse.urljoin(address, urllib.parse.quote(location.strip(), safe=string.punctuation))
        scheme = urllib.parse.urlsplit(target).scheme
    except ValueError as error:
        raise http.client.HTTPException(f"a redirect to {printable(location)}: {error}") from None
    if scheme != "https" and not (scheme == "http" and address.startswith("http:")):
        raise http.client.HTTPException(f"a redirect to {printable(target)}, which is not followed")
    return target
