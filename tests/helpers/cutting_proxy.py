"""A TCP proxy that cuts a connection after so many bytes of what the server says."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class CuttingProxy:
    """Stands before a server; all connections made after `cut_after` share its limit."""

    def __init__(self, port):
        """Prepare to pass on to a port of this machine."""
        self.upstream = port
        self.limit = None
        self.passed = 0
        self._tasks = set()

    async def __aenter__(self):
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc):
        """End all connections."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_after(self, limit):
        """Let so many more bytes of replies through, then cut; None for all."""
        self.limit = limit
        self.passed = 0

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", self.upstream)
        asking = asyncio.create_task(self._ask(reader, back))
        try:
            while data := await there.read(65536):
                if self.limit is not None:
                    data = data[: self.limit - self.passed]
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
                if self.limit is not None and self.passed >= self.limit:
                    break
        except OSError:
            pass
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            for end in (writer, back):
                end.close()
            self._tasks.discard(asyncio.current_task())

    async def _ask(self, reader, back):
        with suppress(OSError):
            while data := await reader.read(65536):
                back.write(data)
                await back.drain()
            back.write_eof()
