"""Access, and what goes with every answer: hosts, origins, keys, content types and headers."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Collection
from typing import Final

import attrs
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from textgen_serve.background import Background
from textgen_serve.errors import ApiError
from textgen_serve.exchange import Exchange, Headers, header
from textgen_serve.metrics import Metrics

_BODIES_PER_PASS: Final = 8  # requests with a body that begin in a pass of the event loop
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_.-]{1,128}")
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    b"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", _POLICY),
]


@attrs.frozen(kw_only=True)
class Access:
    """Rules for who may use a server.

    keys     of which a client has to send one as `Authorization: Bearer KEY`; if there are none,
             none is needed
    hosts    names that the header Host may have, beside addresses and localhost
    origins  of web pages of other servers that may use this one; "*" for any
    """

    keys: Collection[str] = ()
    hosts: Collection[str] = ()
    origins: Collection[str] = ()

    def check(self, scope: Scope) -> None:
        """Raise ApiError for a request that is not allowed.

        A page of another site cannot send one: its Origin differs from Host, and a name that it
        lets point here is not among the hosts.
        """
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not hosts[0]:
            raise ApiError(400, "a request needs one header Host")
        host = hosts[0].decode("latin-1")
        if not self._is_known(host):
            name = _name(host)
            message = f"the host {name!r} is not served; --allow-host {name} allows it"
            raise ApiError(403, message, code="host_not_allowed")
        origin = header(scope, b"origin").decode("latin-1")
        if origin and not self.allows(origin) and origin.partition("://")[2] != host:
            message = f"pages of {origin} are not allowed; --allow-origin {origin} allows them"
            raise ApiError(403, message, code="origin_not_allowed")

    def client(self, scope: Scope) -> str:
        """The key that a request has; none where none is needed. Raises ApiError."""
        scheme, _, given = header(scope, b"authorization").partition(b" ")
        found = ""
        for key in self.keys:
            if hmac.compare_digest(given.strip(), key.encode()) and scheme.lower() == b"bearer":
                found = key
        if self.keys and not found:
            message = (
                "this API key is not valid"
                if given
                else "an API key is needed: Authorization: Bearer KEY"
            )
            raise ApiError(401, message, code="invalid_api_key")
        return found

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin of another server may use this one."""
        return origin in self.origins or "*" in self.origins

    def _is_known(self, host: str) -> bool:
        name = _name(host)
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in ("localhost", *self.hosts)
        return True


def _name(host: str) -> str:
    """A host without its port, in lower case."""
    return re.sub(r":\d*$", "", host).lower()


@attrs.frozen
class Guard:
    """Checks every request before the application sees it, and gives every answer its headers."""

    app: ASGIApp
    access: Access
    metrics: Metrics
    background: Background
    _turns: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(_BODIES_PER_PASS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.background.start()  # where another application mounts this one, no lifespan does it
        if scope["method"] == "POST":  # what is read takes part of a millisecond, and others wait
            await self._turns.acquire()
            asyncio.get_running_loop().call_soon(self._turns.release)
        given = header(scope, b"x-request-id")
        own = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16).encode()
        headers: Headers = [(b"x-request-id", own), *_HEADERS]
        origin = header(scope, b"origin").decode("latin-1")
        if origin and self.access.allows(origin):
            headers += _cross_origin(scope, origin)
        begun = time.perf_counter()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
                self.metrics.answered(scope, message["status"], time.perf_counter() - begun)
            await send(message)

        exchange = Exchange(scope, receive, sent)
        is_preflight = header(scope, b"access-control-request-method")
        try:
            if scope["method"] == "OPTIONS" and is_preflight and self.access.allows(origin):
                await exchange.whole(b"", 204, [])
                return
            self.access.check(scope)
        except ApiError as error:
            await exchange.fail(error)
            return
        await self.app(scope, receive, sent)


def _cross_origin(scope: Scope, origin: str) -> Headers:
    asked = header(scope, b"access-control-request-headers")
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", asked or b"authorization, content-type"),
        (b"access-control-expose-headers", b"x-request-id, x-ignored-parameters, retry-after"),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Origin"),
    ]
