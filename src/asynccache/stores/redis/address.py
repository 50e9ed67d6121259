"""Where Redis is, as a URL says it: checked before anything is opened, and told to no log.

``redis://``, ``rediss://`` (TLS) and ``unix://`` name one server; ``redis+cluster://`` and
``redis+sentinel://``, with ``rediss`` for TLS, name some nodes or sentinels of many.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct

DEFAULT_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
SCHEMES: Final = (
    "redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel",
    "rediss+sentinel",
)  # fmt: skip
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(?::(\d+))?")
_LAST_PORT: Final = 65535


def _check_mode(text: str) -> str:
    if text not in {"required", "optional", "none"}:
        raise ValueError(text)
    return text


def _yes_or_no(text: str) -> bool:
    if text.lower() in {"1", "true", "yes"}:
        return True
    if text.lower() in {"0", "false", "no"}:
        return False
    raise ValueError(text)


OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "client_name": str,
    "db": int,
    "password": str,
    "sentinel_password": str,
    "sentinel_username": str,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_cert_reqs": _check_mode,
    "ssl_certfile": str,
    "ssl_check_hostname": _yes_or_no,
    "ssl_keyfile": str,
    "ssl_password": str,
    "username": str,
}
"""What the query of a URL may say of the connection."""


class RedisAddress(Struct, frozen=True, kw_only=True):
    """One Redis, or one cluster, or one primary known to sentinels."""

    kind: str
    """``"server"``, ``"unix"``, ``"cluster"`` or ``"sentinel"``."""
    hosts: tuple[tuple[str, int], ...] = ()
    tls: bool = False
    path: str = ""
    """Of the unix socket."""
    service: str = ""
    """The name that sentinels know the primary by."""
    options: dict[str, Any] = {}
    """What redis-py's connections are made with: user, password, database, certificates."""
    sentinel_options: dict[str, Any] = {}

    def __repr__(self) -> str:
        where = self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"<RedisAddress {self.kind} {where}>"  # and no password

    @classmethod
    def of(cls, url: str) -> RedisAddress:
        """Return what a URL says.

        Raises:
            TypeError: It isn't a str.
            ValueError: It says nothing that Redis could be reached by. Its password isn't repeated.
        """
        if not isinstance(url, str):
            raise TypeError(f"redis_url must be a str, not {type(url).__name__}")
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ValueError(
                f"redis_url must begin with one of {', '.join(f'{each}://' for each in SCHEMES)}:"
                " write it like redis://localhost:6379/0"
            )
        if parts.fragment:
            raise ValueError("write '#' as %23 in redis_url")
        if parts.path[:1] not in {"", "/"}:
            raise ValueError("redis_url has two slashes: redis://localhost:6379/0")
        if parts.scheme == "unix":
            return cls._unix(parts)
        return cls._hosts(parts)

    @classmethod
    def _hosts(cls, parts: SplitResult) -> RedisAddress:
        options, sentinel_options = _options(parts)
        _, _, places = parts.netloc.rpartition("@")
        transport, _, kind = parts.scheme.partition("+")
        port = SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
        hosts = tuple(_host(place, port) for place in places.split(","))
        if len(hosts) > 1 and not kind:
            raise ValueError("several hosts need redis+cluster:// or redis+sentinel://")
        path = [unquote(part) for part in parts.path.split("/") if part]
        if kind == "sentinel" and not path:
            raise ValueError(
                "redis+sentinel:// needs the primary's name: redis+sentinel://host:26379/name"
            )
        service = path.pop(0) if kind == "sentinel" else ""
        if path:
            options.setdefault("db", _database(path))
        if kind == "cluster" and options.pop("db", 0):
            raise ValueError("a cluster has database 0 alone: leave the number out of redis_url")
        tls = transport == "rediss"
        if not tls and any(name.startswith("ssl_") for name in options):
            raise ValueError("certificates need rediss://, and redis:// sends everything in clear")
        return cls(
            kind=kind or "server",
            hosts=hosts,
            tls=tls,
            service=service,
            options=options,
            sentinel_options=sentinel_options,
        )

    @classmethod
    def _unix(cls, parts: SplitResult) -> RedisAddress:
        options, _ = _options(parts)
        _, _, place = parts.netloc.rpartition("@")
        if place or not parts.path.strip("/"):
            raise ValueError("unix:// needs an absolute path: unix:///run/redis.sock")
        return cls(kind="unix", path=unquote(parts.path), options=options)


def _options(parts: SplitResult) -> tuple[dict[str, Any], dict[str, Any]]:
    options: dict[str, Any] = {}
    user, separator, _ = parts.netloc.rpartition("@")
    if separator:
        username, _, password = user.partition(":")
        if username:
            options["username"] = unquote(username)
        if password:
            options["password"] = unquote(password)
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        parse = OPTIONS.get(name)
        if parse is None:
            near = "".join(f" (did you mean {one}?)" for one in get_close_matches(name, OPTIONS, 1))
            raise ValueError(f"no option {name!r}{near}; a redis_url takes {', '.join(OPTIONS)}")
        try:
            options[name] = parse(text)
        except ValueError as exc:
            raise ValueError(f"option {name!r} of redis_url can't be {text!r}") from exc
    sentinel = {
        name.removeprefix("sentinel_"): options.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in options
    }
    if sentinel and not parts.scheme.endswith("+sentinel"):
        raise ValueError("sentinel_username and sentinel_password need redis+sentinel://")
    return options, sentinel


def _host(place: str, default: int) -> tuple[str, int]:
    found = _HOST.fullmatch(place)
    port = default if found is None or found[2] is None else int(found[2])
    if found is None or not 0 < port <= _LAST_PORT:
        raise ValueError(f"redis_url names no host and port by {place!r}")
    return unquote(found[1].strip("[]")) or "localhost", port


def _database(path: list[str]) -> int:
    if len(path) > 1 or not path[0].isdecimal():
        raise ValueError(f"the path of redis_url is a database's number, not {'/'.join(path)!r}")
    return int(path[0])
