"""Who may ask for what: the checks that every request passes before anything is done.

The page is for one person on this machine, or for those who have the token. Other websites that are open in the same
browser must not be able to read the run or to write notes:

- A website whose name is pointed at this machine (DNS rebinding) sends its own name as `Host`, which is refused.
- A website that loads a shard as a script, or a still as an image, is refused by what the browser says of the request
  (`Sec-Fetch-Site`), and by `Cross-Origin-Resource-Policy` in browsers that do not say it.
- A website that posts a form has another `Origin`, and does not know the secret that `/api/session` gives.
- The page itself runs scripts of its own folder only (Content-Security-Policy), so a label that holds markup cannot.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSRF_HEADER = "x-video-sae"
TOKEN = "token"
READING = ("GET", "HEAD")
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who is let in."""

    host: str
    """Address that is listened on."""
    port: int
    token: str | None
    """What the URL has to hold; None if only this machine can reach the page."""
    csrf: str
    """What a change has to hold."""

    @classmethod
    def of(cls, host: str, port: int, *, is_local: bool) -> Access:
        """New secrets for an address."""
        return cls(
            host=host, port=port, token=None if is_local else secrets.token_urlsafe(24), csrf=secrets.token_urlsafe(24)
        )

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token; cookies do not tell ports apart."""
        return f"video-sae-{self.port}"

    @property
    def url(self) -> str:
        """The address of the page, to be opened on this machine."""
        host = self.host if self.host not in ("0.0.0.0", "::") else socket.gethostname()
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/" + ("" if self.token is None else f"?{urlencode({TOKEN: self.token})}")

    def knows_host(self, header: str) -> bool:
        """Whether a `Host` header names this server by an address that nobody else can give a name to."""
        try:
            parts = urlsplit(f"//{header}")
            name, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            return False
        if parts.username is not None or parts.path or parts.query or parts.fragment or (port or 80) != self.port:
            return False
        if name in {"localhost", self.host.lower()} or _is_loopback(name):
            return True
        # Elsewhere the token keeps strangers out. Numbers cannot be rebound; of names only the machine's own count.
        return self.token is not None and (
            _is_address(name) or name in {socket.gethostname().lower(), socket.getfqdn()}
        )


class Guard:
    """Refuses what must not be answered, and puts the headers on everything else.

    Args:
        app: what answers.
        access: who is let in.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], scope["query_string"], Headers(scope=scope))
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, query: bytes, headers: Headers) -> Response | None:
        access = self._access
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not access.knows_host(hosts[0]):
            return _plain(421, "This server answers to its own address only: open the one that it printed.")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin"):
            is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            if not is_link or method not in READING:
                return _plain(403, "Other websites cannot use this page.")
        if method not in READING:
            if method != "POST":
                return _plain(405, "Only GET, HEAD and POST are answered.")
            origin = headers.get("origin")
            if origin is not None and origin != f"http://{hosts[0]}":
                return _plain(403, "Other websites cannot write here.")
            if not _same(headers.get(CSRF_HEADER), access.csrf):
                return _plain(403, "A change needs the header X-Video-Sae with `csrf` of /api/session.")
        if access.token is None:
            return None
        given = parse_qs(query.decode("latin-1")).get(TOKEN, [""])[0]
        if path == "/" and method == "GET" and _same(given, access.token):
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(access.cookie, access.token, httponly=True, samesite="lax", path="/")
            return answer
        if not _same(_cookies(headers).get(access.cookie), access.token) and not _same(given, access.token):
            return _plain(401, "Open the whole address that `video-sae browse` printed, with its token.")
        return None


def _cookies(headers: Headers) -> Mapping[str, str]:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in jar.items()}


def _same(given: str | None, wanted: str) -> bool:
    return given is not None and secrets.compare_digest(given.encode(), wanted.encode())


def _plain(status: int, text: str) -> Response:
    return PlainTextResponse(
        text + "\n", status_code=status, headers={"connection": "close"} if status != 401 else None
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback
