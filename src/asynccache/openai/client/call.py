"""What one call asks for, and the ways in by which calls come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from asynccache.cache.facade import Scope
from asynccache.keys.key import Prefix
from asynccache.openai.client.address import RequestAddress
from asynccache.openai.client.endpoints import Endpoint

RawCall = Callable[..., Awaitable[Any]]
"""Makes the SDK's call and returns its raw response. Takes an ``input`` instead of the call's."""


class ResultForm(Struct, frozen=True, gc=False):
    """In which form a caller wants the answer."""

    result: Any
    """The type of a plain answer."""
    event: Any = None
    """The type of a streamed one's events."""
    finish: Callable[[Any], Any] | None = None
    """What the SDK makes of a plain answer in the end."""
    raw: str = ""
    """The kind of raw response: "true", "stream", or "" for none."""
    stream_cls: Any = None
    """The class of stream that a raw response is parsed into."""
    options: Any = None
    """The SDK's of the request, for a raw response."""
    decode: bool | None = None
    """Of embeddings: whether vectors that travelled as text are to be numbers.

    None where only the SDK knows.
    """
    strange: bool = False
    """Only the SDK can make it: it gets the HTTP response."""


Read = tuple[
    dict[str, Any],  # the body as plain data
    bytes,  # its canonical form
    Mapping[str, Any] | None,  # further headers
    Mapping[str, Any] | None,  # further query parameters
    bool,  # whether a stream is wanted
    ResultForm,
]
"""What a way in reads from a call. A plain tuple, as one is made for each hit."""


class WayIn(Protocol):
    """How calls come: as a method's arguments, or as the options of a request.

    ``given`` is one call as it came.
    """

    def read(self, given: Any) -> Read | None:
        """Return what a call asks for, or None where only the SDK can tell.

        Raises:
            NotCanonicalError: The request has no key.
        """
        ...

    def patience(self, given: Any) -> tuple[Any, Any]:
        """Return the call's own timeout and number of retries, in the SDK's terms."""
        ...

    async def pause(self, sleep: Callable[[], Any]) -> None:
        """Wait as the SDK waits before it retries a call."""
        await sleep()

    def again(self, call: KeyedCall) -> RawCall:
        """Copy a call as it is now, and return what makes it."""
        ...

    def past(self, given: Any) -> Awaitable[Any]:
        """Make the call as it came."""
        ...


class KeyedCall(Struct, frozen=True, gc=False):
    """One call on its way to an answer."""

    way: WayIn
    given: Any
    """The call as it came."""
    scope: Scope
    endpoint: Endpoint
    address: RequestAddress
    prefix: Prefix
    key: bytes
    sample: int
    data: dict[str, Any]
    """The body as plain data, in the caller's order."""
    canonical: bytes
    """The body's part of the key: see `keyed_form`."""
    secrets: tuple[str, ...]
    """What was left out of that as secret."""
    headers: Mapping[str, Any] | None
    query: Mapping[str, Any] | None
    streaming: bool
    form: ResultForm

    def paths(self) -> dict[str, int]:
        """Return a digest of each part of the request, by its path."""
        return self.prefix.paths(self.canonical)

    @property
    def about(self) -> str:
        """What is asked for, to be read in an error: no more of the address than the host."""
        model = self.data.get("model")
        how = ", streamed" if self.streaming else ""
        which = f", sample {self.sample}" if self.sample else ""
        return f"{self.endpoint.path} at {self.address.place}, model {model!r}{how}{which}"

    def __repr__(self) -> str:  # tools that report errors show it: without secrets
        return f"KeyedCall({self.about})"
