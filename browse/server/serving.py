"""Listening, and what is done about slow clients.

A client that does not finish its request, or does not take the answer, is dropped after a while, and holds nobody up in
the meantime: no thread waits for it, and it gets an answer piece by piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from collect.errors import UserError

MOST_CONNECTIONS = 256
SLOWEST_REQUEST_S = 10.0
"""From the connection, or from the answer before, to the end of a request's headers."""
SLOWEST_PIECE_S = 30.0
"""For a client to take one piece of an answer."""
IDLE_S = 15
"""How long a connection is kept for the next request."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that drops connections whose first request does not come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(SLOWEST_REQUEST_S, self._drop_if_silent)

    def _drop_if_silent(self) -> None:
        if not hasattr(self.cycle, "scope"):  # no request has begun
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._deadline.cancel()
        super().connection_lost(exc)


class TimedSending:
    """Ends an answer whose client does not take it.

    Args:
        app: what answers.
        slowest_s: for one piece.
    """

    def __init__(self, app: ASGIApp, slowest_s: float = SLOWEST_PIECE_S) -> None:
        self._app = app
        self._slowest_s = slowest_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def timed(message: Message) -> None:
            await asyncio.wait_for(send(message), self._slowest_s)

        with contextlib.suppress(TimeoutError):
            await self._app(scope, receive, timed if scope["type"] == "http" else send)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address, or to a free port of it if the port is 0.

    Raises:
        UserError: the address is none of this machine, or something listens there already.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"--host {host} is no address of this machine ({error.strerror}): name another one.") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(MOST_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise UserError(
            f"Port {port} of {host} cannot be listened on ({error.strerror}): name another --port, or 0 for a free one."
        ) from None
    return listener


def server_of(app: ASGIApp) -> uvicorn.Server:
    """A server, not yet running."""
    config = uvicorn.Config(
        TimedSending(app),
        http=PatientProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=32 << 10,
    )
    return uvicorn.Server(config)
