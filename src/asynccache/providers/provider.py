"""What is known of a provider: where it is found, which requests are cached, how answers are read.

A request is cached if its host, a header that marks the provider's clients, or a registration says
whose it is, and its body has the members of the operation. A path alone never does: other people's
APIs have the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from asynccache.entries.entry import Kind
from asynccache.providers.facts import Facts
from asynccache.providers.judging import Judge

_USUAL_PORT: Final = re.compile(":(?:80|443)$")


def one_choice(_: Mapping[str, Any]) -> int:
    """Return how many choices a request asks for, where it can't ask for several."""
    return 1


def asks_for_stream(body: Mapping[str, Any], _path: str) -> bool:
    """Tell whether a request asks for a stream, as most providers have it: by ``stream``."""
    return body.get("stream") is True


class Operation(Struct, frozen=True, kw_only=True, eq=False):
    """One kind of request whose answers are cached."""

    name: str
    """Of its own among all, e.g. "openai-chat": what ``endpoint(like=...)`` refers to."""
    path: re.Pattern[str]
    """Matches the end of a URL's path; what stands before it is the server's address.

    A group ``model`` names the model. A group ``deployment`` belongs to the address, unless it
    names the very model that the body asks for.
    """
    required: frozenset[str]
    """Members that a body must have."""
    holds: frozenset[str]
    """Members of which a plain answer must have one, not empty. Another answer isn't stored."""
    facts: type[Facts] = Facts
    """Reads what an answer says of itself."""
    streams: Callable[[Mapping[str, Any], str], bool] = asks_for_stream
    """Tells from body and path whether a stream is asked for."""
    streamed: Kind = "sse"
    """How a stream is framed."""
    stream_query: str = ""
    """A part of the query of those requests whose streams are framed so."""
    choices: Callable[[Mapping[str, Any]], int] = one_choice
    """Returns how many choices a request asks for."""
    judge: Callable[[Mapping[str, Any]], Judge | None] | None = None
    """Returns what judges the answers to a body; None where there is nothing to judge."""
    stateful: frozenset[str] = frozenset()
    """Members with which an answer depends on state at the server: such a request isn't cached."""
    secretive: frozenset[str] = frozenset()
    """Members that may hold secrets, where `secrets.without_secrets` knows of them."""
    marks: tuple[bytes, ...] = ()
    """One of these is in the canonical form of a body that holds some, and in hardly any other.
    None where there are hardly such members."""
    inputs: str = ""
    """The member that holds several inputs, each of which is an entry; "" where there is none."""

    def read(self, body: bytes) -> Facts:
        """Return what a plain answer says of itself; one of another shape isn't complete."""
        facts = self.facts()
        facts.read(body)
        if not facts.error and self.holds.isdisjoint(facts.names):
            facts.complete = False
        return facts


def operation(
    name: str,
    path: str,
    required: str,
    holds: str,
    *,
    stateful: str = "",
    secretive: str = "",
    **more: Any,
) -> Operation:
    """Return an operation, described in a line of a table.

    Names of members are in one text, with spaces between them.

    Args:
        name: Its name.
        path: A regular expression for the end of its path.
        required: See `Operation.required`.
        holds: See `Operation.holds`.
        stateful: See `Operation.stateful`.
        secretive: See `Operation.secretive`.
        more: Other attributes.
    """
    return Operation(
        name=name,
        path=re.compile(f"(?:{path})$"),
        required=frozenset(required.split()),
        holds=frozenset(holds.split()),
        stateful=frozenset(stateful.split()),
        secretive=frozenset(secretive.split()),
        **more,
    )


class Provider(Struct, frozen=True, kw_only=True, eq=False):
    """One provider, or one kind of server."""

    name: str
    """What people read in events and summaries, e.g. "anthropic"."""
    operations: tuple[Operation, ...]
    hosts: tuple[str, ...] = ()
    """Where it is found: "api.anthropic.com", "localhost:11434"; one that begins with "." or "-" is
    the end of a name."""
    markers: tuple[tuple[str, str], ...] = ()
    """Headers that only its clients send: a name in lower case, and a part of the value."""
    base: str = ""
    """How paths begin; for servers that do other things as well."""
    anywhere: bool = False
    """The paths and bodies of its operations say enough at any host."""
    kept_headers: tuple[str, ...] = ()
    """Headers of answers that are stored, in lower case, besides those that all have."""

    def is_at(self, host: str) -> bool:
        """Tell whether a host, with its port if that isn't the usual one, is this provider's."""
        name = _USUAL_PORT.sub("", host)
        return any(
            name.endswith(known) if known.startswith((".", "-")) else known == name
            for known in self.hosts
        )

    def is_marked(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request's headers, by names in lower case, are of this provider's."""
        return any(value in headers.get(name, "") for name, value in self.markers)
