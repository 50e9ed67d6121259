"""`Cache`: one method per store, with AutoGen's names, order and defaults."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final, Never, Self, Unpack

from asynccache.cache.cache import AsyncCache
from asynccache.cache.settings import CacheOptions, positive, seconds_of, settings_of
from asynccache.errors import described, from_extra
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.stores.base import Store

_MEBIBYTE: Final = 2**20
_REDIS_URL: Final = "redis://localhost:6379/0"
_COSMOS_DATABASE: Final = "autogen_cache"
_COSMOS_CONTAINER: Final = "asynccache"
_LOCAL_TTL: Final = 5.0  # seconds: a deletion elsewhere shows within that


class Cache:
    """Makes caches: each method returns a closed `AsyncCache`, to be opened by ``async with``.

    There are no instances of it. Annotate a parameter that takes a cache with `AsyncCache`, or with
    `SyncCache` if it takes what ``with`` gives.
    """

    def __new__(cls, *args: Never, **options: Never) -> Self:  # noqa: ARG004, D102 - it only raises
        raise TypeError(
            "Cache only makes caches: call Cache.disk(), Cache.memory(), Cache.redis() or"
            " Cache.from_url(...), and annotate with AsyncCache or SyncCache"
        )

    @staticmethod
    def disk(
        cache_seed: int | str = 42,
        cache_path_root: str | Path = ".cache",
        *,
        max_bytes: int = 10 * 1024 * _MEBIBYTE,
        gitignore: bool = True,
        **options: Unpack[CacheOptions],
    ) -> AsyncCache:
        """Keep answers in a folder. Several processes on one machine can share it.

        Args:
            cache_seed: The name of the cache. Another seed has other answers. It is not the
                model's ``seed``.
            cache_path_root: The folder that holds all seeds. It is made if it is missing. ``~`` is
                your home folder.
            max_bytes: The largest size of all seeds under the root together, in bytes, and half of
                the volume at most. Beyond it the least recently used entries are removed.
            gitignore: Keep the folder out of git, if it is made here.
            **options: See `CacheOptions`.

        Raises:
            ValueError: An option has no such value.
            TypeError: An option has the wrong type.
        """
        settings = settings_of(Cache.disk, cache_seed, options)
        positive("max_bytes", max_bytes)
        from asynccache.stores.disk.store import DiskStore

        store = DiskStore(
            _at_home(cache_path_root),
            settings.namespace.seed,
            max_bytes=max_bytes,
            max_entry_bytes=settings.max_entry_bytes,
            gitignore=gitignore,
        )
        return AsyncCache(store, settings)

    @staticmethod
    def memory(
        cache_seed: int | str = 42,
        *,
        max_bytes: int = 256 * _MEBIBYTE,
        **options: Unpack[CacheOptions],
    ) -> AsyncCache:
        """Keep answers in the memory of this process, as long as the cache object lives.

        Args:
            cache_seed: As for `disk`.
            max_bytes: The largest size in bytes. Beyond it the least recently used entries are
                removed.
            **options: See `CacheOptions`.

        Raises:
            ValueError: An option has no such value.
            TypeError: An option has the wrong type.
        """
        settings = settings_of(Cache.memory, cache_seed, options)
        positive("max_bytes", max_bytes)
        from asynccache.stores.memory import MemoryStore

        return AsyncCache(MemoryStore(max_bytes), settings)

    @staticmethod
    def redis(
        cache_seed: int | str = 42,
        redis_url: str = _REDIS_URL,
        *,
        client: object | None = None,
        max_connections: int = 8,
        local_max_bytes: int | None = None,
        local_ttl: float | timedelta | None = None,
        **options: Unpack[CacheOptions],
    ) -> AsyncCache:
        """Keep answers in Redis or Valkey. Processes on many machines can share them.

        Args:
            cache_seed: As for `disk`.
            redis_url: ``redis://[user:password@]host:6379/0``, ``rediss://`` for TLS, or
                ``unix:///run/redis.sock``; ``redis+cluster://host1,host2`` and
                ``redis+sentinel://host1,host2/name``, with ``rediss`` for TLS. Certificates as a
                query: ``?ssl_ca_certs=…&ssl_certfile=…&ssl_keyfile=…``.
            client: A ``redis.asyncio.Redis`` or ``RedisCluster`` instead. It is used as it is and
                never closed.
            max_connections: The most connections to one server in one event loop. A call that needs
                another one waits.
            local_max_bytes: The size in bytes of copies to keep in this process too. None keeps
                none.
            local_ttl: Seconds or timedelta for which a copy may be served after another process has
                deleted the answer. The default is 5.
            **options: See `CacheOptions`.

        Raises:
            ValueError: An option has no such value.
            TypeError: An option has the wrong type.
            ImportError: redis-py isn't installed: it comes with ``asynccache[redis]``.
        """
        settings = settings_of(Cache.redis, cache_seed, options)
        positive("max_connections", max_connections)
        if client is not None and redis_url != _REDIS_URL:
            raise ValueError("give a client or a redis_url, not both")
        with from_extra("redis"):
            from asynccache.stores.redis.store import RedisStore

        store = RedisStore(
            redis_url,
            client=client,
            timeout=settings.timeout(remote=True),
            max_connections=max_connections,
        )
        return AsyncCache(_with_copies(store, local_max_bytes, local_ttl), settings)

    @staticmethod
    def cosmos_db(
        connection_string: str | None = None,
        container_id: str | None = None,
        cache_seed: int | str = 42,
        client: object | None = None,
        *,
        database_id: str = _COSMOS_DATABASE,
        endpoint: str | None = None,
        credential: object | None = None,
        create: bool = True,
        local_max_bytes: int | None = None,
        local_ttl: float | timedelta | None = None,
        **options: Unpack[CacheOptions],
    ) -> AsyncCache:
        """Keep answers in Azure Cosmos DB for NoSQL. Processes everywhere can share them.

        Args:
            connection_string: As the portal shows it: ``AccountEndpoint=https://…;AccountKey=…``.
            container_id: The container that holds the answers. The default is ``asynccache``.
            cache_seed: As for `disk`.
            client: An ``azure.cosmos.aio.CosmosClient`` instead. It is used as it is and never
                closed.
            database_id: The database that holds the container.
            endpoint: The account's address, with a ``credential``, instead of a connection string.
            credential: A key, or a token credential such as one of ``azure.identity.aio``. It is
                never closed.
            create: Make the database and the container if they are missing.
            local_max_bytes: As for `redis`.
            local_ttl: As for `redis`.
            **options: See `CacheOptions`.

        Raises:
            ValueError: An option has no such value, or the account's address is missing.
            TypeError: An option has the wrong type.
            ImportError: azure-cosmos isn't installed: it comes with ``asynccache[cosmos]``.
        """
        settings = settings_of(Cache.cosmos_db, cache_seed, options)
        with from_extra("cosmos"):
            from asynccache.stores.cosmos.account import ContainerPlace, CosmosAccount
            from asynccache.stores.cosmos.store import CosmosStore

        account = CosmosAccount.of(
            connection_string, endpoint=endpoint, credential=credential, client=client
        )
        place = ContainerPlace(
            database_id,
            _COSMOS_CONTAINER if container_id is None else container_id,
            create=create,
            expiring=settings.ttl is not None,
        )
        store = CosmosStore(account, place, timeout=settings.timeout(remote=True))
        return AsyncCache(_with_copies(store, local_max_bytes, local_ttl), settings)

    @staticmethod
    def aiocache(
        cache: object,
        cache_seed: int | str = 42,
        *,
        clock: Clock = SYSTEM_CLOCK,
        **options: Unpack[CacheOptions],
    ) -> AsyncCache:
        """Keep answers in an aiocache cache: in memory, Redis, memcached or one of your own.

        Args:
            cache: An instance of an aiocache cache. It is used as it is, in one event loop, and
                never closed. Its serializer and plugins are not used.
            cache_seed: As for `disk`.
            clock: The clock for expiry and leases. Tests pass an `asynccache.testing.ManualClock`.
            **options: See `CacheOptions`.

        Raises:
            ValueError: An option has no such value.
            TypeError: An option has the wrong type, or ``cache`` isn't an aiocache cache.
        """
        settings = settings_of(Cache.aiocache, cache_seed, options)
        with from_extra("aiocache"):
            from asynccache.stores.aiocache.store import AiocacheStore

        return AsyncCache(AiocacheStore(cache, clock=clock), settings, clock=clock)

    @staticmethod
    def from_url(url: str, **options: Unpack[CacheOptions]) -> AsyncCache:
        """Make a cache from one line of configuration.

        Args:
            url: One of ``disk:``, ``disk:folder``, ``disk:///srv/cache``, ``memory:``, a redis_url,
                ``cosmos://:key@account.documents.azure.com/database/container``, and ``cosmos:``,
                which takes the connection string from ``COSMOS_CONNECTION_STRING``. Options stand
                in its query: ``disk:/srv/cache?cache_seed=1&ttl=3600&max_bytes=1000000``.
            **options: Further options, see `CacheOptions`. Those in the URL win.

        Raises:
            ValueError: There is no such scheme or option, or an option has no such value.
            TypeError: It isn't a str.
        """
        from asynccache.cache.urls import parsed

        store, found = parsed(url)
        make: Callable[..., AsyncCache] = getattr(Cache, store)
        try:
            cache = make(**{**options, **found})
        except TypeError as exc:
            raise ValueError(f"{store}: {exc}") from exc
        cache.url = None if options else url
        return cache

    @staticmethod
    def from_store(
        store: Store,
        cache_seed: int | str = 42,
        *,
        clock: Clock = SYSTEM_CLOCK,
        **options: Unpack[CacheOptions],
    ) -> AsyncCache:
        """Make a cache over a store of your own. Test it by `asynccache.testing.StoreContract`.

        Args:
            store: An implementation of `asynccache.stores.Store`.
            cache_seed: As for `disk`.
            clock: The clock for expiry and leases. Tests pass an `asynccache.testing.ManualClock`.
            **options: See `CacheOptions`.

        Raises:
            ValueError: An option has no such value.
            TypeError: An option has the wrong type.
        """
        if not isinstance(store, Store):
            raise TypeError(
                f"from_store takes an instance of asynccache.stores.Store, not {described(store)}"
            )
        return AsyncCache(store, settings_of(Cache.from_store, cache_seed, options), clock=clock)


def _at_home(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as exc:
        raise ValueError(
            f"{path}: there is no such home folder; for a folder of that name write ./{path}"
        ) from exc


def _with_copies(
    store: Store, local_max_bytes: int | None, local_ttl: float | timedelta | None
) -> Store:
    """Return a store, with memory in front of it if it is to have some."""
    if local_max_bytes is None:
        if local_ttl is not None:
            raise ValueError("local_ttl needs local_max_bytes, which says how many bytes to copy")
        return store
    from asynccache.stores.near import NearCache

    fresh = _LOCAL_TTL if local_ttl is None else seconds_of(local_ttl)
    return NearCache(
        store,
        max_bytes=positive("local_max_bytes", local_max_bytes),
        ttl=positive("local_ttl", fresh),
    )
