"""Uvicorn, as this server needs it: it says where it listens, and lets go of slow clients."""

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # that a request's first line and headers may take to come
STALL_SECONDS = 60.0  # that a client may take to receive a part of an answer


class PunctualProtocol(H11Protocol):
    """Uvicorn's HTTP, which lets go of clients whose request does not come, or who do not receive the answer.

    Uvicorn itself waits for ever for the rest of a request's headers, and for an answer's to be received.

    Args:
        args: As of uvicorn's.
        kwargs: As of uvicorn's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timers: dict[str, asyncio.TimerHandle] = {}  # by what is waited for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait("request", HEADER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; wait for its headers no longer where they have come."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._have("request")
        else:
            self._wait("request", HEADER_SECONDS)

    def pause_writing(self) -> None:
        """Begin to wait for the client to receive."""
        super().pause_writing()
        self._wait("receipt", STALL_SECONDS)

    def resume_writing(self) -> None:
        """Go on; it has received."""
        super().resume_writing()
        self._have("receipt")

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._have("request")
        self._have("receipt")

    def _wait(self, what: str, seconds: float) -> None:
        if what not in self._timers:
            self._timers[what] = self.loop.call_later(seconds, self.transport.abort)

    def _have(self, what: str) -> None:
        if timer := self._timers.pop(what, None):
            timer.cancel()


class AnnouncingServer(uvicorn.Server):
    """Uvicorn's server, which prints its address when it is ready."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        for each in sockets or ():
            host, port = each.getsockname()[:2]
            print(f"Ready at http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
