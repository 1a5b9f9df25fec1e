"""Only the person who started the server uses it: token, host name, origin, headers."""

import hmac
import http
import secrets
from collections.abc import Sequence
from http.cookies import SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = ("GET", "HEAD")  # that change nothing
# Nothing is loaded from elsewhere, and no other page may hold this one.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Return True for an address of this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def bracketed(host: str) -> str:
    """Return a host as it stands in an address.

    >>> bracketed("::1"), bracketed("localhost")
    ('[::1]', 'localhost')
    """
    return f"[{host}]" if ":" in host else host


def named_hosts(host: str, port: int) -> list[str]:
    """Return the values of the header Host that requests to this server have.

    Args:
        host: the address that it listens at.
        port: the port.

    Returns:
        Each with the port. A name of another server that leads here is not among them.
    """
    names = [bracketed(host)]
    if is_loopback(host):
        names += ["127.0.0.1", "localhost", "[::1]"]
    return [f"{name}:{port}" for name in dict.fromkeys(names)]


class Guard:
    """Let requests through that carry the token and come from the server's own page.

    A request with the token in its address gets it as a cookie, which the browser sends from then
    on.

    Args:
        app: what is guarded.
        hosts: allowed values of the header Host.

    Attributes:
        token: drawn at random for each server.
        cookie: name of the cookie; cookies are not told apart by port, so it has the port.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.origins = frozenset(f"http://{host}" for host in hosts)
        self.token = secrets.token_urlsafe(32)
        self.cookie = f"n2n_{hosts[0].rpartition(':')[2]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        status = self._refused(scope, headers)
        shown_token = self._token_in_address(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                answered.update(HEADERS)
                if shown_token and status is None:
                    cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                    answered.append("Set-Cookie", cookie)
            await send(message)

        if status is not None:
            response = PlainTextResponse(f"{status.value} {status.phrase}\n", status.value)
            await response(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    def _refused(self, scope: Scope, headers: Headers) -> http.HTTPStatus | None:
        """Return the status of a request that is refused; None: it is let through."""
        if headers.get("host") not in self.hosts:
            return http.HTTPStatus.MISDIRECTED_REQUEST
        if not self._has_token(scope, headers):
            return http.HTTPStatus.FORBIDDEN
        if scope["method"] in SAFE_METHODS:
            opened_by_hand = scope["path"] == "/"
            site = headers.get("sec-fetch-site", "same-origin")
            if site != "same-origin" and not opened_by_hand and site != "none":
                return http.HTTPStatus.FORBIDDEN
            return None
        if headers.get("origin") not in self.origins:
            return http.HTTPStatus.FORBIDDEN
        return None

    def _token_in_address(self, scope: Scope) -> bool:
        """Return True if the address of the page has the right token."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return False
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return self._is_token(query.get("token", [""])[0])

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        if self._token_in_address(scope):
            return True
        cookies = SimpleCookie(headers.get("cookie", ""))
        sent = cookies.get(self.cookie)
        return sent is not None and self._is_token(sent.value)

    def _is_token(self, text: str) -> bool:
        """Compare in a time that tells nothing about the token."""
        return hmac.compare_digest(text.encode(), self.token.encode())
