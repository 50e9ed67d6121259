"""The container that answers are kept in: found and checked, or made."""

from __future__ import annotations

from typing import Any, Final

from azure.cosmos import PartitionKey
from msgspec import Struct

from asynccache.errors import StoreRefusedError
from asynccache.stores.cosmos.errors import (
    CONFLICT,
    DRIVER_ERRORS,
    NOT_FOUND,
    mapped,
    status_of,
)
from asynccache.stores.cosmos.items import OURS, Form

_FOR_EVER: Final = -1  # what a ttl of its own may shorten: the container's default
_INDEXING: Final = {
    # Ids are indexed in any case, and nothing else is looked for: entries cost half as much.
    "indexingMode": "consistent",
    "automatic": True,
    "includedPaths": [],
    "excludedPaths": [{"path": "/*"}],
}


class ContainerPlace(Struct, frozen=True):
    """Where in an account answers are kept."""

    database: str
    container: str
    create: bool = True
    """Make what is missing."""
    expiring: bool = False
    """Answers have a time to live, which the container must be able to end."""


async def found_or_made(
    client: Any,  # noqa: ANN401 - the SDK's client
    place: ContainerPlace,
    *,
    read_only: bool,
) -> tuple[Any, Form, bool]:
    """Return the container, how documents look in it, and whether it ends what has a ``ttl``.

    Raises:
        StoreRefusedError: It isn't there, or not fit; the message says what to change.
        StoreError: It can't be reached.
    """
    container = client.get_database_client(place.database).get_container_client(place.container)
    properties = await _unless(NOT_FOUND, container.read())
    if properties is None:
        if read_only or not place.create:
            raise StoreRefusedError(await _what_is_missing(client, place))
        # Somebody else may make them at the same moment: then they are there all the same.
        await _unless(CONFLICT, client.create_database(place.database))
        await _unless(
            CONFLICT,
            client.get_database_client(place.database).create_container(
                place.container,
                PartitionKey("/id"),
                default_ttl=_FOR_EVER,
                indexing_policy=_INDEXING,
            ),
        )
        properties = await container.read()
    return container, _form(properties, place), properties.get("defaultTtl") is not None


async def _unless(status: int, call: Any) -> Any:  # noqa: ANN401 - the SDK's coroutine
    try:
        return await call
    except DRIVER_ERRORS as exc:
        if status_of(exc) == status:
            return None
        raise mapped(exc) from exc


async def _what_is_missing(
    client: Any,  # noqa: ANN401 - the SDK's client
    place: ContainerPlace,
) -> str:
    database = await _unless(NOT_FOUND, client.get_database_client(place.database).read())
    missing = f"container {place.container!r} in database {place.database!r}"
    if database is None:
        missing = f"database {place.database!r}"
    return f"there is no {missing}: create it, or open the cache with create=True"


def _form(properties: dict[str, Any], place: ContainerPlace) -> Form:
    name = place.container
    paths = properties["partitionKey"]["paths"]
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
    if place.expiring and properties.get("defaultTtl") is None:
        raise StoreRefusedError(
            f"container {name!r} has its time to live switched off, so that no ttl would work:"
            " set its default TTL to -1 (on, no default), or open the cache without ttl"
        )
    return Form(path)
