"""One event loop's way to a container: a client, and requests that end by their own deadline."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from azure.cosmos.aio import CosmosClient
from msgspec import Struct

from asynccache.errors import StoreTimeoutError, StoreUnavailableError
from asynccache.keys.key import Namespace
from asynccache.stores.cosmos.container import ContainerPlace, found_or_made
from asynccache.stores.cosmos.errors import (
    DRIVER_ERRORS,
    answer_in,
    charge_of,
    mapped,
    pause_before_retry,
)
from asynccache.stores.cosmos.items import Form
from asynccache.stores.cosmos.lookups import CosmosLookups

T = TypeVar("T")
_log = logging.getLogger("asynccache")

_SLOTS: Final = 32  # requests under way in one loop: twice as many are no faster
_OPENING: Final = 10.0  # seconds for handshake, account, container, and making what is missing
_CLOSING: Final = 5.0  # seconds
_NEVER: Final = -1  # times: the SDK takes 0 for "as usual", which is nine times


class CosmosAddress(Struct, frozen=True):
    """How an account is reached: by a client that is there, or by endpoint and credential."""

    endpoint: str = ""
    credential: Any = None
    client: Any = None


class Meter:
    """Counts requests and what they cost, in all loops of a store."""

    def __init__(self) -> None:
        self.requests = 0
        self.charge = 0.0
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self.requests, self.charge = 0, 0.0

    def add(self, charge: float) -> None:
        """Count a request."""
        with self._lock:
            self.requests += 1
            self.charge += charge


class CosmosLink:
    """The way of the running loop.

    Args:
        address: How the account is reached.
        place: Where in it answers are kept.
        timeout: Seconds until a request counts as unanswered.
        meter: Told what requests cost.
        read_only: Nothing is made that is missing.
    """

    def __init__(
        self,
        address: CosmosAddress,
        place: ContainerPlace,
        *,
        timeout: float,
        meter: Meter,
        read_only: bool,
    ) -> None:
        self._address = address
        self._place = place
        self._timeout = timeout
        self._meter = meter
        self._read_only = read_only
        self._slots = asyncio.Semaphore(_SLOTS)
        self._opening: asyncio.Task[None] | None = None
        self._client: Any = None
        self._container: Any = None
        self._form: Form | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self.lookups: dict[Namespace, CosmosLookups] = {}
        self.expires = True
        """Whether the container removes what is past its ``ttl``."""

    async def form(self) -> Form:
        """Return how documents look here; opens the link.

        Raises:
            StoreError: The container can't be used; the message says why.
        """
        while self._form is None:
            if self._closed:
                raise StoreUnavailableError("the store was closed meanwhile")
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open())
            # Whoever asked first may give up: what is opened serves the next.
            await asyncio.shield(self._opening)
        return self._form

    async def _open(self) -> None:
        address = self._address
        client = address.client
        try:
            async with asyncio.timeout(_OPENING):
                if client is None:
                    client = new_client(address)
                    await client.__aenter__()
                container, form, self.expires = await found_or_made(
                    client, self._place, read_only=self._read_only
                )
        except BaseException as exc:
            if client is not None and address.client is None:
                await _close(client)
            if isinstance(exc, TimeoutError):
                message = f"Cosmos DB did not answer within {_OPENING:g} s"
                raise StoreTimeoutError(message) from exc
            if isinstance(exc, DRIVER_ERRORS):
                raise mapped(exc) from exc
            raise
        self._client, self._container, self._form = client, container, form

    async def ask(
        self, call: Callable[[Any], Awaitable[T]], *, times: int = 1
    ) -> tuple[int, T | None]:
        """Make a request, again if that may help, and return its result with a zero.

        What was not found, was there already or has changed returns its status, with None.

        Args:
            call: Makes the request, given the container.
            times: How many timeouts it may take: more for what no caller waits for.

        Raises:
            StoreError: It failed, or had no answer in time.
        """
        end = asyncio.get_running_loop().time() + self._timeout * times
        try:
            async with asyncio.timeout_at(end):
                await self.form()
                async with self._slots:
                    return await self._ask(call, end)
        except TimeoutError as exc:
            raise StoreTimeoutError(
                f"Cosmos DB did not answer within {self._timeout * times:g} s"
            ) from exc

    async def _ask(self, call: Callable[[Any], Awaitable[T]], end: float) -> tuple[int, T | None]:
        attempt = 0
        while True:
            try:
                return 0, await call(self._container)
            except TimeoutError:  # our own deadline's
                raise
            except DRIVER_ERRORS as exc:
                self._meter.add(charge_of(exc))
                if (status := answer_in(exc)) is not None:
                    return status, None
                pause = pause_before_retry(exc, attempt)
                # A wait that ends after the deadline would help nobody.
                if pause is None or asyncio.get_running_loop().time() + pause >= end:
                    raise mapped(exc) from exc
                attempt += 1
                await asyncio.sleep(pause * (1 + random.random() / 4))  # noqa: S311 - no secret

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start what is finished even if nobody waits for it any more; `aclose` waits."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.debug("something about Cosmos DB failed behind its caller's back: %r", exc)

    def count(self, headers: Mapping[str, Any], _result: object = None) -> None:
        """Count what a request has cost: the ``response_hook`` of all."""
        self._meter.add(float(headers.get("x-ms-request-charge", 0)))

    async def aclose(self) -> None:
        """Close the client, if it is ours."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSING)
        for task in list(self._tasks):
            task.cancel()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
            if not self._opening.cancelled():
                self._opening.exception()  # its waiters have it; nobody else needs to
        client, self._client, self._container, self._form = self._client, None, None, None
        if client is not None and self._address.client is None:
            await _close(client)


def new_client(address: CosmosAddress) -> Any:  # noqa: ANN401 - the SDK's client
    """Return a client that leaves retrying to us, but for regions that fail over."""
    return CosmosClient(
        address.endpoint,
        address.credential,
        retry_total=0, retry_connect=0, retry_read=0, retry_status=0,
        retry_throttle_total=_NEVER,
    )  # fmt: skip


def checked_address(
    connection_string: str | None, endpoint: str | None, credential: object, client: object
) -> CosmosAddress:
    """Return an address from what the user gave.

    Raises:
        ValueError: It says nothing that an account could be reached by, or too much.
        TypeError: ``client`` is no client of azure-cosmos's ``aio``.
    """
    if client is not None:
        if not isinstance(client, CosmosClient):
            raise TypeError(
                "client must be an azure.cosmos.aio.CosmosClient,"
                f" not {type(client).__module__}.{type(client).__qualname__}"
            )
        if connection_string or endpoint or credential:
            raise ValueError("give a client, or what makes one, not both")
        return CosmosAddress(client=client)
    if connection_string:
        if endpoint or credential:
            raise ValueError("give a connection_string, or endpoint and credential, not both")
        pairs = (part.partition("=") for part in connection_string.split(";"))
        parts = {name.strip().lower(): value.strip() for name, _, value in pairs}
        endpoint, credential = parts.get("accountendpoint"), parts.get("accountkey")
        if not endpoint or not credential:
            raise ValueError(
                "connection_string must read AccountEndpoint=https://…/;AccountKey=…;"
                " as the portal shows it under Keys"
            )
    if not endpoint or not credential:
        raise ValueError(
            "say where the account is: connection_string, or endpoint and credential"
            " (a key or a token credential), or client"
        )
    return CosmosAddress(endpoint=endpoint, credential=credential)


async def _close(client: Any) -> None:  # noqa: ANN401 - the SDK's client
    try:
        async with asyncio.timeout(_CLOSING):
            await client.close()
    except (TimeoutError, *DRIVER_ERRORS) as exc:
        _log.warning("a client for Cosmos DB didn't close: %s", mapped(exc))
