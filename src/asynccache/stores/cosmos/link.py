"""One event loop's way to a container: a client, and requests that end by their own deadline."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from msgspec import Struct

from asynccache.errors import StoreTimeoutError, StoreUnavailableError
from asynccache.keys.key import Namespace
from asynccache.runtime.batcher import Batcher
from asynccache.runtime.bounded import BoundedDict
from asynccache.runtime.clock import Clock
from asynccache.stores.cosmos.account import (
    ContainerPlace,
    CosmosAccount,
    CosmosContainer,
    found_or_made,
)
from asynccache.stores.cosmos.errors import (
    CHARGE,
    DRIVER_ERRORS,
    answer_in,
    mapped,
    number_in,
    pause_before_retry,
)
from asynccache.stores.cosmos.items import CosmosItem
from asynccache.stores.links import LoopLink

Request: TypeAlias = Callable[[Any, Callable[..., None]], Awaitable[Any]]
"""Asks the SDK's container, with a ``response_hook``."""

_log = logging.getLogger("asynccache")

_SLOTS: Final = 32  # requests under way in one loop: twice as many are no faster
_OPENING: Final = 10.0  # seconds for handshake, account, container, and making what is missing
_CLOSING: Final = 5.0  # seconds
_REMEMBERED: Final = 10_000  # leases: what was forgotten is asked for when it is needed


class Meter:
    """Counts requests and what they cost, in all loops of a store."""

    def __init__(self) -> None:
        self.requests = 0
        self.charge = 0.0
        self._lock = threading.Lock()

    def add(self, charge: float) -> None:
        """Count a request."""
        with self._lock:
            self.requests += 1
            self.charge += charge


class CosmosAnswer(Struct, frozen=True):
    """What Cosmos DB says to a request."""

    status: int = 0
    """Zero, or why it refused: what was not found, was there already, or has changed."""
    result: Any = None
    etag: str = ""


class CosmosLink(LoopLink):
    """The way of the running loop.

    Args:
        account: How the account is reached.
        place: Where in it answers are kept.
        timeout: Seconds until a request counts as unanswered.
        clock: Tells how long an entry has still to live.
        meter: Told what requests cost.
    """

    def __init__(
        self,
        account: CosmosAccount,
        place: ContainerPlace,
        *,
        timeout: float,
        clock: Clock,
        meter: Meter,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.own: BoundedDict[tuple[str, bytes], CosmosItem] = BoundedDict(_REMEMBERED)
        """How the items of leases that were claimed here stood last, by id and token."""
        self.held: BoundedDict[str, None] = BoundedDict(_REMEMBERED)
        """The ids of items that were seen to hold a lease."""
        self.lookups: dict[Namespace, Batcher[bytes, bytes | None]] = {}
        """What sends lookups together, for each namespace that is in use."""
        self._account = account
        self._place = place
        self._timeout = timeout
        self._meter = meter
        self._slots = asyncio.Semaphore(_SLOTS)
        self._opening: asyncio.Task[None] | None = None
        self._client: Any = None
        self._container: CosmosContainer | None = None
        self._closed = False

    async def container(self) -> CosmosContainer:
        """Return the container; opens the link.

        Raises:
            StoreError: The container can't be used; the message says why.
        """
        while self._container is None:
            if self._closed:
                raise StoreUnavailableError("the store was closed meanwhile")
            if self._opening is None or self._opening.done():
                self._opening = self.spawn(self._open())
            # Whoever asked first may give up: what is opened serves the next.
            await asyncio.shield(self._opening)
        return self._container

    async def _open(self) -> None:
        client = self._account.lent
        try:
            async with asyncio.timeout(_OPENING):
                if client is None:
                    client = self._client = self._account.new_client()
                    await client.__aenter__()
                self._container = await found_or_made(client, self._place)
        except BaseException as exc:
            await self._close_client()
            if isinstance(exc, DRIVER_ERRORS):
                raise mapped(exc) from exc
            raise

    async def ask(self, call: Request, *, times: int = 1) -> CosmosAnswer:
        """Make a request, and make it again if that may help.

        Args:
            call: Makes the request, given the SDK's container and a ``response_hook``.
            times: How many timeouts it may take: more for what no caller waits for.

        Raises:
            StoreError: It failed, or had no answer in time.
        """
        timeout = self._timeout * times
        end = self.loop.time() + timeout
        try:
            async with asyncio.timeout_at(end):
                container = (await self.container()).driver
                async with self._slots:
                    return await self._ask(container, call, end)
        except TimeoutError as exc:
            raise StoreTimeoutError(f"Cosmos DB did not answer within {timeout:g} s") from exc

    async def _ask(self, container: Any, call: Request, end: float) -> CosmosAnswer:  # noqa: ANN401 - the SDK's
        etag, attempt = "", 0

        def hook(headers: Mapping[str, Any], _result: object = None) -> None:
            nonlocal etag
            etag = headers.get("etag", "")
            self._meter.add(float(headers.get(CHARGE, 0)))

        while True:
            try:
                return CosmosAnswer(0, await call(container, hook), etag)
            except TimeoutError:  # our own deadline's
                raise
            except DRIVER_ERRORS as exc:
                self._meter.add(number_in(exc, CHARGE) or 0)
                if status := answer_in(exc):
                    return CosmosAnswer(status)
                pause = pause_before_retry(exc, attempt)
                # A wait that ends after the deadline would help nobody.
                if pause is None or self.loop.time() + pause >= end:
                    raise mapped(exc) from exc
                attempt += 1
                await asyncio.sleep(pause * (1 + random.random() / 4))  # noqa: S311 - no secret

    async def aclose(self) -> None:
        """Finish what is under way, and close the client, if it is ours."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        await self.end_tasks(patience=_CLOSING)
        self._container = None
        await self._close_client()

    async def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        try:
            async with asyncio.timeout(_CLOSING):
                await client.close()
        except DRIVER_ERRORS as exc:
            _log.warning("a client for Cosmos DB didn't close: %s", mapped(exc))
