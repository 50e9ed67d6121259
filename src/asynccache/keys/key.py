"""From what identifies a call to its key: SHA-256 over the canonical form, in a namespace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final
from zlib import crc32

from asynccache.keys.canonical import canonical_json, canonical_value
from asynccache.keys.denied import is_denied_query, kept_headers
from asynccache.keys.paths import flat_paths, path_digests
from asynccache.keys.plain import PlainData

KEY_BYTES: Final = 32
_FORM: Final = b"asynccache/1"  # of the canonical form: another form makes other keys
_SEED: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")  # also a folder's and a key's part
_TENANT_LIMIT: Final = 200  # characters, as far as a tenant's name is its own
_DIGEST: Final = "sha256:"


class Namespace(PlainData, frozen=True):
    """A part of a store that is a cache of its own. Two namespaces never share an entry."""

    seed: str
    """The ``cache_seed`` as text."""
    tenant: str | None = None
    """Whose entries these are, if the cache has tenants."""

    @classmethod
    def of(cls, cache_seed: int | str, tenant: str | None = None) -> Namespace:
        """Return the namespace of a ``cache_seed`` and an optional ``tenant``.

        Raises:
            TypeError: ``cache_seed`` is neither int nor str (None switches caching off elsewhere,
                here ``mode="off"`` does), or ``tenant`` isn't a str.
            ValueError: ``cache_seed`` can't be part of a file name, or ``tenant`` is no text.
        """
        if isinstance(cache_seed, bool) or not isinstance(cache_seed, int | str):
            raise TypeError(
                f"cache_seed must be an int or a str, not {type(cache_seed).__name__};"
                ' to cache nothing pass mode="off"'
            )
        seed = str(cache_seed)
        if not _SEED.fullmatch(seed.removeprefix("-") if isinstance(cache_seed, int) else seed):
            raise ValueError(
                "cache_seed must be 1 to 64 ASCII letters, digits, '.', '_' or '-', and not begin"
                " with '.' or '-'"
            )
        if tenant is not None:
            if not isinstance(tenant, str):
                raise TypeError(f"tenant must be a str or None, not {type(tenant).__name__}")
            if not tenant:
                raise ValueError("tenant is empty: pass None where there is no tenant")
            try:
                tenant.encode()
            except UnicodeEncodeError as exc:
                raise ValueError("tenant isn't text: it holds a lone surrogate") from exc
        return cls(seed, tenant)

    @property
    def owner(self) -> str | None:
        """The tenant as stores keep it: a long one by its digest, which is no other's name."""
        tenant = self.tenant
        if tenant is None or (len(tenant) <= _TENANT_LIMIT and not tenant.startswith(_DIGEST)):
            return tenant
        return _DIGEST + sha256(tenant.encode()).hexdigest()

    @property
    def text(self) -> str:
        """The namespace in one printable word, unambiguous: ``42``, or ``42@acme``."""
        if self.owner is None:
            return self.seed
        from urllib.parse import quote

        return f"{self.seed}@{quote(self.owner, safe='')}"


class Prefix:
    """All of a request but its body, hashed once and continued for each body.

    Args:
        namespace: Where the entry lives.
        method: The HTTP method, in capitals.
        upstream: Scheme, host, port and base path, or the name given to the upstream. No user-info.
        path: Path below the upstream.
        query: Query parameters; those that carry credentials are left out here.
        headers: Headers; those that `denied` names are left out here.
        ignore_headers: Further names to leave out, in lower case.
    """

    __slots__ = ("_first", "_hash", "digests", "facts")

    def __init__(
        self,
        namespace: Namespace,
        *,
        method: str,
        upstream: str,
        path: str,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        ignore_headers: frozenset[str] = frozenset(),
    ) -> None:
        self.facts: dict[str, object] = {
            "method": method,
            "upstream": upstream,
            "path": path,
            "query": {k: v for k, v in (query or {}).items() if not is_denied_query(k)},
            "headers": _combined(kept_headers((headers or {}).items(), ignore_headers)),
        }
        self.digests: Final = {
            f"@{name}": crc32(canonical_value(fact)) for name, fact in self.facts.items()
        }
        """A digest of each fact, by its name after an ``@``."""
        self._hash = sha256(_FORM)
        self._hash.update(canonical_value(("request", namespace.seed, namespace.tenant)))
        self._hash.update(canonical_value(self.facts))
        self._first = self._numbered(0)

    def key(self, body: bytes, sample: int = 0) -> bytes:
        """Return the key of a canonical body; ``sample`` numbers independent answers to it."""
        state = (self._first if sample == 0 else self._numbered(sample)).copy()
        state.update(body)
        digest: bytes = state.digest()
        return digest

    def paths(self, body: bytes) -> dict[str, int]:
        """Return a digest of each part of a request with a canonical body, by its path."""
        return {**flat_paths(path_digests(body)), **self.digests}

    def _numbered(self, sample: int) -> Any:  # noqa: ANN401 - hashlib names no public type for it
        state = self._hash.copy()
        state.update(b"#%016x" % sample)  # of one length: the body that follows can't be confused
        return state


def _combined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join the values of a name that was given twice, as RFC 9110 (5.3) reads them."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def key_of(named: str | bytes) -> bytes:
    """Return the key that 64 hexadecimal digits name, or 32 bytes are.

    Raises:
        ValueError: They are none.
    """
    try:
        key = bytes.fromhex(named) if isinstance(named, str) else bytes(named)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key is 64 hexadecimal digits or 32 bytes, not {named!r}")
    return key


def value_key(namespace: Namespace, purpose: str, value: object, sample: int = 0) -> bytes:
    """Return the key of a Python value used for a purpose ("value", "memoize") in a namespace.

    ``sample`` numbers independent answers; no value is another one's sample.

    Raises:
        NotCanonicalError: The value has no canonical form.
    """
    return sha256(_value_place(namespace, purpose, sample) + canonical_value(value)).digest()


@lru_cache(maxsize=256)
def _value_place(namespace: Namespace, purpose: str, sample: int) -> bytes:
    place: tuple[object, ...] = (purpose, namespace.seed, namespace.tenant)
    return _FORM + canonical_value((*place, sample) if sample else place)


def request_key(prefix: Prefix, body: object, sample: int = 0) -> bytes:
    """Return the key of a request whose body is plain data.

    Raises:
        NotCanonicalError: The body has no canonical form.
    """
    return prefix.key(canonical_json(body), sample)
