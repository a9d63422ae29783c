"""What the server refuses before it does any work: too many requests, strange hosts, other sites' pages."""

import ipaddress
import math
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zoo.tasks.retrieval.search.server.errors import RequestError

MOST = 200  # products that one search gives, those before `offset` among them
TEXT_LENGTH = 300  # characters of a text
ID_LENGTH = 512
ADDRESSES = 10_000  # whose rate is known
BURST = 3.0  # seconds' worth of requests that may come at once
SEARCHES = 20  # requests for images and all else that count as one search
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Limits:
    """How much the server takes.

    Attributes:
        rate: Searches a second from one address.
        requests: Requests that are served at the same time.
        uploads: Searches by an uploaded image that are served at the same time.
        upload_bytes: Of a request's body.
        upload_seconds: That a request's body may take to come.
        pixels: Of an image that is searched by or made smaller.
        cache_bytes: Of images that are kept in memory.
    """

    rate: float = 10.0
    requests: int = 256
    uploads: int = 32
    upload_bytes: int = 8 * 2**20
    upload_seconds: float = 30.0
    pixels: int = 50_000_000
    cache_bytes: int = 128 * 2**20


class Rate:
    """Token buckets, one an address: so many a second, and three seconds' worth at once.

    Args:
        rate: Tokens a second.
        clock: Gives the time in seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when there were so many

    def wait(self, address: str, cost: float = 1.0) -> float:
        """Take tokens of an address; give the seconds until there are so many, 0 where they were there and taken."""
        now, most = self._clock(), max(1.0, BURST * self._rate)
        tokens, then = self._buckets.pop(address, (most, now))
        tokens = min(most, tokens + (now - then) * self._rate)
        allowed = tokens >= cost
        self._buckets[address] = (tokens - cost if allowed else tokens, now)
        if len(self._buckets) > ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (cost - tokens) / self._rate


class Guard:
    """What stands before an application: its limits, and the headers by which browsers protect their users.

    A host that is a name is refused unless it is known: a page of another site, whose name was made to lead here,
    could read the answers otherwise. No other site's page is allowed to read or send anything.

    Args:
        app: The application.
        limits: How much it takes.
        hosts: Names that the server may be asked by, besides addresses, ``localhost`` and the machine's own name.
    """

    def __init__(self, app: ASGIApp, limits: Limits, hosts: Collection[str] = ()) -> None:
        self.app, self.limits = app, limits
        self._hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}
        self._rate = Rate(limits.rate)
        self._serving = {"GET": 0, "POST": 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(scope)
        except RequestError as error:
            await error.response(scope, receive, send_with_headers)
            return
        kind = "POST" if scope["method"] == "POST" else "GET"
        self._serving[kind] += 1
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self._serving[kind] -= 1

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_known(host):
            raise RequestError(
                421,
                f"Host is {host[:200]!r}: no name of this server; --allowed_hosts takes others",
                argument="Host",
                value=host,
                valid="an address, or a name that the server knows",
            )
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            raise RequestError(
                403,
                f"Origin is {origin[:200]!r}: pages of other sites may not ask this server",
                argument="Origin",
                value=origin,
            )
        if sum(self._serving.values()) >= self.limits.requests or (
            scope["method"] == "POST" and self._serving["POST"] >= self.limits.uploads
        ):
            raise RequestError(503, "The server is busy; try again in a second", headers={"Retry-After": "1"})
        cost = 1.0 if scope["path"] == "/search" else 1 / SEARCHES
        wait = self._rate.wait(_network(scope), cost)
        if wait:
            raise RequestError(
                429,
                f"Too many requests; try again in {math.ceil(wait)} s",
                valid=f"{self.limits.rate:g} searches a second",
                headers={"Retry-After": str(math.ceil(wait))},
            )

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _network(scope: Scope) -> str:
    """The client's address; of IPv6 the network, for one client has all addresses of it."""
    address = scope["client"][0] if scope.get("client") else ""
    if ":" in address and _is_address(address):
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    return address
