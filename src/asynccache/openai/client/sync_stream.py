"""Streams between the background loop and threads that can't await: one way for each direction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from openai import APIConnectionError

from asynccache.cache.facade import ChunkSource
from asynccache.openai.client import sdk, sdk_responses
from asynccache.runtime import background
from asynccache.runtime.threaded import ThreadedBody


class SyncStreamBody(sdk_responses.SyncByteStream):
    """A stream's events as the body of a synchronous client's response.

    Args:
        source: The events; live ones belong to the background loop.
    """

    def __init__(self, source: ChunkSource) -> None:
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        source = self._source
        if not source.live:
            while not source.closed and (event := source.ready()) is not None:
                yield event
            return
        try:
            while not source.closed and (events := background.call(source.several)):
                yield from events
        except APIConnectionError as exc:
            # Who reads the response itself sees the transport's error, as without a cache.
            raise sdk.transport_error(str(exc.request.url), exc) from None

    def close(self) -> None:
        # Without waiting: the collector may call this anywhere, holding whatever lock.
        self._source.close_anywhere()


class AsyncReading:
    """A synchronous client's raw response, whose stream the background loop reads in threads.

    Has of the asynchronous one what recording a stream needs, under the same names.

    Args:
        raw: Of the SDK.
    """

    def __init__(self, raw: Any) -> None:
        response = sdk_responses.http_of(raw)
        self._raw = raw
        self._response = response
        self._body = ThreadedBody(response, response.iter_bytes(), self._close)
        self.http_response = self
        self.headers = response.headers
        self.status_code: int = response.status_code
        self.extensions = response.extensions
        self.retries_taken = getattr(raw, "retries_taken", 0)
        self.request = response.request

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Read the body's pieces as they come."""
        return aiter(self._body)

    async def aclose(self) -> None:
        """Close the response; a read that is under way ends first."""
        await self._body.aclose()

    def _close(self) -> None:
        if sdk_responses.is_opened(self._raw):
            with self._raw:  # whoever made a stream of it waits for its end
                pass
        self._response.close()
