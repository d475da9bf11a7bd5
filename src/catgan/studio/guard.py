"""Who may talk to the studio: this machine's browser, from the studio's own page; others with a token.

A page of another site can send requests to this machine through its visitor's browser. It cannot hide that: `Origin` names
it, and a name of its own that leads here (DNS rebinding) stands in `Host`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import socket
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "catgan-studio"  # the beginning of its name
POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets a request through to the application, or answers it: 400 another host, 403 another site, 401 no token."""

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        """host: the address that the server listens at. token: what those who come must know; None is nothing."""
        self.app, self.host, self.token = app, host, token
        # Cookies know no port: two studios on one host have one each.
        self.cookie = f"{COOKIE}-{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status, reason = self.refusal(scope)
        if status and scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        elif status:
            await PlainTextResponse(reason + "\n", status)(scope, receive, self.with_policy(send))
        elif scope["type"] == "http" and self.token is not None and self.known(asked(scope)):
            answer = RedirectResponse("/", 303)  # without the token, which would stay in the address
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            await answer(scope, receive, self.with_policy(send))
        else:
            await self.app(scope, receive, self.with_policy(send))

    def refusal(self, scope: Scope) -> tuple[int, str]:
        """Status and reason; 0 lets it through."""
        if "\0" in scope["path"]:  # no file's name, on which older versions of starlette stumble
            return 404, "there is no such page"
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.own(host):
            return 400, "this is not the address of a studio"
        asks = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if asks and (origin or "").lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return 403, "only the studio's own page may ask"
        if self.token is None or self.known(HTTPConnection(scope).cookies.get(self.cookie, "")):
            return 0, ""
        if scope["type"] == "http" and self.known(asked(scope)):
            return 0, ""
        return 401, "open the address with the token that catgan studio printed"

    def own(self, host: str) -> bool:
        """Whether a Host header names this server: by address, or by its own name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if is_loopback(name) or name == self.host.lower():
            return True
        if self.token is None:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name == socket.gethostname().lower()
        return True

    def known(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), (self.token or "").encode())

    def with_policy(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in POLICY.items():
                    headers[name] = value
            await send(message)

        return sent


def asked(scope: Scope) -> str:
    """The token in an address, if there is one."""
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
