"""The account and the container that answers are kept in: checked, and made where it is missing."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from azure.cosmos import PartitionKey
from azure.cosmos.aio import CosmosClient
from msgspec import Struct

from asynccache.errors import StoreRefusedError
from asynccache.stores.cosmos.errors import (
    CONFLICT,
    DRIVER_ERRORS,
    NOT_FOUND,
    mapped,
    status_of,
)
from asynccache.stores.cosmos.items import OURS

_NEVER: Final = -1  # times: the SDK takes 0 for "as usual", which is nine times
_FOR_EVER: Final = -1  # what a ttl of its own may shorten: the container's default
_INDEXING: Final = {
    # Ids are indexed in any case, and nothing else is looked for: entries cost half as much.
    "indexingMode": "consistent",
    "automatic": True,
    "includedPaths": [],
    "excludedPaths": [{"path": "/*"}],
}


class CosmosAccount(Struct, frozen=True):
    """How an account is reached: by endpoint and credential, or by a client that is lent."""

    endpoint: str = ""
    credential: Any = None
    lent: Any = None

    @classmethod
    def of(
        cls,
        connection_string: str | None = None,
        *,
        endpoint: str | None = None,
        credential: object = None,
        client: object = None,
    ) -> CosmosAccount:
        """Return an account from what the user gave.

        Args:
            connection_string: As the portal shows it.
            endpoint: The account's address, with a ``credential``, instead of a connection string.
            credential: A key, or a token credential of ``azure.identity.aio``; it isn't closed.
            client: An ``azure.cosmos.aio.CosmosClient`` to be used as it is; it isn't closed.

        Raises:
            ValueError: It says nothing that an account could be reached by, or too much.
            TypeError: ``client`` is no client of azure-cosmos's ``aio``.
        """
        if sum(map(bool, (client is not None, connection_string, endpoint or credential))) > 1:
            raise ValueError(
                "give a connection_string, or endpoint and credential, or a client, not both"
            )
        if client is not None:
            if not isinstance(client, CosmosClient):
                kind = f"{type(client).__module__}.{type(client).__qualname__}"
                raise TypeError(f"client must be an azure.cosmos.aio.CosmosClient, not {kind}")
            return cls(lent=client)
        if connection_string:
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
        return cls(endpoint, credential)

    def new_client(self) -> Any:  # noqa: ANN401 - the SDK's client
        """Return a client that leaves retrying to us, but for regions that fail over."""
        return CosmosClient(
            self.endpoint, self.credential,
            retry_total=0, retry_connect=0, retry_read=0, retry_status=0,
            retry_throttle_total=_NEVER,
        )  # fmt: skip


class ContainerPlace(Struct, frozen=True):
    """Where in an account answers are kept."""

    database: str = "autogen_cache"  # AutoGen's
    container: str = "asynccache"
    create: bool = True
    """Make what is missing."""
    expiring: bool = False
    """Answers have a time to live, which the container must be able to end."""


class CosmosContainer(Struct, frozen=True):
    """A container that is fit for answers."""

    driver: Any
    """The SDK's own."""
    path: tuple[str, ...]
    """The names that lead to its partition key."""
    expires: bool
    """It ends what is past its ``ttl``."""


async def found_or_made(client: Any, place: ContainerPlace) -> CosmosContainer:  # noqa: ANN401 - the SDK's
    """Return the container.

    Raises:
        StoreRefusedError: It isn't there, or not fit; the message says what to change.
        StoreError: It can't be reached.
    """
    database = client.get_database_client(place.database)
    container = database.get_container_client(place.container)
    properties = await _unless(NOT_FOUND, container.read())
    if properties is None:
        if not place.create:
            missing = f"container {place.container!r} in database {place.database!r}"
            if await _unless(NOT_FOUND, database.read()) is None:
                missing = f"database {place.database!r}"
            raise StoreRefusedError(
                f"there is no {missing}: create it, or open the cache with create=True"
            )
        # Somebody else may make them at the same moment: then they are there all the same.
        await _unless(CONFLICT, client.create_database(place.database))
        made = database.create_container(
            place.container,
            PartitionKey("/id"),
            default_ttl=_FOR_EVER,
            indexing_policy=_INDEXING,
        )
        await _unless(CONFLICT, made)
        properties = await container.read()
    expires = properties.get("defaultTtl") is not None
    if place.expiring and not expires:
        raise StoreRefusedError(
            f"container {place.container!r} has its time to live switched off, so that no ttl would"
            " work: set its default TTL to -1 (on, no default), or open the cache without ttl"
        )
    path = _key_path(place.container, properties["partitionKey"]["paths"])
    return CosmosContainer(container, path, expires)


async def _unless(status: int, call: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - the SDK's
    """Return what a call to the SDK returns, None if it is refused with a status."""
    try:
        return await call
    except DRIVER_ERRORS as exc:
        if status_of(exc) == status:
            return None
        raise mapped(exc) from exc


def _key_path(name: str, paths: list[str]) -> tuple[str, ...]:
    if len(paths) != 1:
        raise StoreRefusedError(
            f"container {name!r} has a hierarchical partition key ({', '.join(paths)}):"
            " give one whose partition key is a single path, such as /id"
        )
    path = tuple(paths[0].strip("/").split("/"))
    if path[0] in OURS or path[0].startswith("_") or (path[0] == "id" and len(path) > 1):
        raise StoreRefusedError(
            f"container {name!r} is partitioned by {paths[0]}, which answers need for themselves:"
            " give one whose partition key is another path, such as /id"
        )
    return path
