"""What comes with an answer beside its body: what of it is kept, and what only who waits gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from asynccache.entries.entry import Kind, Meta
from asynccache.providers.facts import Facts

KEPT_HEADERS: Final = ("x-request-id", "request-id")
"""What all keep: it tells of the answer, and not of the moment and the account it was sent to."""
_COOKIES: Final = frozenset({b"set-cookie", b"set-cookie2"})
_SAID_OF_HTTP: Final = ("http_version", "reason_phrase")
_FRAMING: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""How the body travelled; ours is whole and decoded."""


class Received(Struct, frozen=True):
    """What a server sent with an answer, for those who wait for it. None of it is stored."""

    headers: list[tuple[bytes, bytes]]
    extensions: dict[str, Any]
    """HTTP's version and the server's words for the status."""
    request: Any = None
    """The request that was sent; None for a caller who hasn't sent it."""

    @classmethod
    def of(
        cls, headers: Iterable[tuple[bytes, bytes]], extensions: Mapping[str, Any], request: Any
    ) -> Received:
        """Return what of a response's headers and extensions may be handed on."""
        return cls(
            [one for one in headers if one[0].lower() not in _COOKIES],
            {name: value for name, value in extensions.items() if name in _SAID_OF_HTTP},
            request,
        )

    def for_others(self) -> Received:
        """Return what callers may have who haven't sent the request: it holds credentials."""
        return Received(self.headers, self.extensions)

    def unframed(self) -> list[tuple[bytes, bytes]]:
        """Return the headers less those that say how the body travelled."""
        return [one for one in self.headers if one[0].lower() not in _FRAMING]


def meta_of(
    facts: Facts, status: int, headers: Mapping[str, str], kind: Kind, kept: Iterable[str]
) -> Meta:
    """Return what is kept of a response beside its body.

    Args:
        facts: What the answer says of itself.
        status: Its HTTP status.
        headers: Of the response; names are found without regard to case.
        kind: The body's.
        kept: Names of headers to keep besides those that all keep.
    """
    names = (*KEPT_HEADERS, *kept)
    return Meta(
        kind,
        status=status,
        content_type=headers.get("content-type", ""),
        headers=tuple((name, headers[name]) for name in names if name in headers),
        model=facts.model,
        input_tokens=facts.input_tokens,
        output_tokens=facts.output_tokens,
        cut=facts.cut,
        cache_read_tokens=facts.cache_read_tokens,
        cache_write_tokens=facts.cache_write_tokens,
    )
