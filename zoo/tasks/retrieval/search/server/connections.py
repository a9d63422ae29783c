"""Uvicorn, as this server needs it: it says where it listens, and lets go of slow clients."""

import asyncio
import socket

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # that a request's first line and headers may take to come
STALL_SECONDS = 60.0  # that a client may take to receive a part of an answer


class PunctualProtocol(H11Protocol):
    """Uvicorn's HTTP, which lets go of clients whose request does not come, or who do not receive the answer.

    Uvicorn itself waits for ever for the rest of a request's headers, and for an answer's to be received.
    """

    _coming: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; wait for its headers no longer where they have come."""
        super().data_received(data)
        self._await_request()

    def _await_request(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._coming = _cancelled(self._coming)
        elif self._coming is None:
            self._coming = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def on_response_complete(self) -> None:
        """Wait for the next request, as long as uvicorn keeps connections."""
        super().on_response_complete()
        self._coming = _cancelled(self._coming)

    def pause_writing(self) -> None:
        """Begin to wait for the client to receive."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on; it has received."""
        super().resume_writing()
        self._stalled = _cancelled(self._stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._coming = _cancelled(self._coming)
        self._stalled = _cancelled(self._stalled)


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class AnnouncingServer(uvicorn.Server):
    """Uvicorn's server, which prints its address when it is ready."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        for each in sockets or ():
            host, port = each.getsockname()[:2]
            print(f"Ready at http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
