"""Who may ask: a browser of this machine that was given the token, and pages of ours alone."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

__all__ = ["Access", "Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN = ("/", "/login", "/static/login.js", "/shared.css", "/static/app.css", "/static/icon.svg")
"""What a browser needs to present its token; none of it says anything about models."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'self'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # Without any, a form would send the origin null.
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """What a request must show.

    Attributes:
        token: The secret of this server.
        port: Where it listens on the loopback interface.
    """

    token: str
    port: int

    @property
    def cookie(self) -> str:
        """Name of the cookie; browsers share those of all ports of a host."""
        return f"irc-ui-{self.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names by which a browser may call this server: no name that DNS could rebind."""
        return tuple(f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]"))

    def is_token(self, text: str) -> bool:
        """Whether a text is the token, in a time that says nothing of it."""
        return hmac.compare_digest(text.encode(), self.token.encode())


class Guard:
    """Refuses requests before the application sees them, and hardens every answer."""

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        pairs = ((name.decode("latin-1"), one.decode("latin-1")) for name, one in scope["headers"])
        headers = dict(pairs)
        scope["admitted"] = self._knows_token(headers)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, _hardened(send))
            return
        status, text = refusal
        body = f"irc ui: {text}\n".encode()
        start = {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"text/plain; charset=utf-8")],
        }
        hardened = _hardened(send)
        await hardened(start)
        await hardened({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if headers.get("host", "") not in self._access.hosts:
            return 421, "this host name is not mine; open http://127.0.0.1 with the port and token"
        origin = headers.get("origin")
        own = origin == f"http://{headers['host']}"
        if (origin is not None and not own) or headers.get("sec-fetch-site") == "cross-site":
            return 403, "a page of another origin asked"
        bearer = "authorization" in headers
        if scope["method"] not in ("GET", "HEAD") and not own and not bearer:
            return 403, "a change needs the header Origin, as browsers send it"
        if not scope["admitted"] and scope["path"] not in _OPEN:
            return 401, "no token or a wrong one; open the address that irc ui printed"
        return None

    def _knows_token(self, headers: dict[str, str]) -> bool:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._access.cookie)
        except CookieError:
            morsel = None
        return self._access.is_token(given or (morsel.value if morsel else ""))


def _hardened(send: Send) -> Send:
    async def hardened(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", ())}
            message["headers"] = [
                *message.get("headers", ()),
                *(
                    (name.encode(), value.encode())
                    for name, value in _HEADERS.items()
                    if name.encode() not in given
                ),
            ]
        await send(message)

    return hardened
