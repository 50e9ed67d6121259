"""What one call asks for, as what, and how: the words between the doors and the exchange."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from asynccache.cache.cache import AsyncCache
from asynccache.core.calls import Mode
from asynccache.core.engine import Engine
from asynccache.keys.key import Namespace, Prefix
from asynccache.openai.client.address import RequestAddress
from asynccache.openai.client.body import RequestBody
from asynccache.openai.client.endpoints import Endpoint


class Lookup(Struct, frozen=True, gc=False):
    """What one call asks for."""

    cache: AsyncCache
    engine: Engine
    endpoint: Endpoint
    address: RequestAddress
    mode: Mode
    namespace: Namespace
    prefix: Prefix
    body: RequestBody
    key: bytes
    sample: int
    streaming: bool

    @property
    def about(self) -> str:
        """What is asked for, to be read in an error: no more of the address than the host."""
        model = self.body.data.get("model")
        how = ", streamed" if self.streaming else ""
        which = f", sample {self.sample}" if self.sample else ""
        return f"{self.endpoint.path} at {self.address.place}, model {model!r}{how}{which}"


class ResultForm(Struct, frozen=True, gc=False):
    """As what a caller wants the answer."""

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
    strange: bool = False
    """Only the SDK can make it: it gets the HTTP response."""


class CallOptions(Struct, frozen=True, gc=False):
    """What of a call is no part of its body."""

    headers: Mapping[str, Any] | None
    query: Mapping[str, Any] | None
    timeout: Any
    retries: Any
