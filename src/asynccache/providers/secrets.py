"""Known secrets in request bodies: what is taken out before a key is made or anything is kept.

Those that the providers' references name as such, where they stand: credentials of MCP servers and
of other tools that the provider calls for its user, and what containers get for their domains. Of
an MCP server's URL also the user-info, and what of its query carries credentials in any URL.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, cast
from urllib.parse import unquote

import msgspec

from asynccache.keys.denied import without_credentials

_LONG_ENOUGH: Final = 8  # characters: a shorter secret may well stand in an answer by chance
_ENCODE: Final = msgspec.json.Encoder().encode
_TOOLS: Final = frozenset({"mcp", "connector"})
_IN_TOOLS: Final = {
    "streamablehttptransport": (("headers",), "url"),
    "googlemaps": (("authConfig", "auth_config"), ""),
    "externalapi": (("authConfig", "auth_config", "apiAuth", "api_auth"), ""),
}
"""Gemini's, by the names of the objects that hold them, without underscores and capitals."""
_AT_TOP: Final[dict[tuple[str, ...], tuple[tuple[str, ...], str]]] = {
    (): (("fallback_credit_token",), ""),
    ("mcp_servers",): (("authorization_token",), "url"),
    ("connectors",): (("user_access_token",), ""),
}
"""Anthropic's and Cohere's, by their paths."""


def _secrets_of(members: dict[str, Any], path: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Return which members of an object are secrets, and which one is a URL that may hold some."""
    if path in _AT_TOP:
        return _AT_TOP[path]
    name = path[-1]
    if name == "tools" and members.get("type") in _TOOLS:  # wherever a tool may stand
        return ("authorization", "headers"), "server_url"
    if name == "domain_secrets":
        return ("value",), ""
    if path[0] == "tools":
        return _IN_TOOLS.get(name.replace("_", "").lower(), ((), ""))
    return (), ""


def without_secrets(body: Any, found: list[str], path: tuple[str, ...] = ()) -> Any:
    """Return a copy of a body less its secrets, which are added to a list.

    Args:
        body: Any part of a body.
        found: Takes the secrets.
        path: The names of the members that the part is in.
    """
    if isinstance(body, dict):
        members = cast("dict[str, Any]", body)
        hidden, url = _secrets_of(members, path)
        if url and isinstance(address := members.get(url), str):
            plain, secrets = without_credentials(address)
            members = {**members, url: plain}
            for secret in secrets:
                _collect(secret, found)
                _collect(unquote(secret), found)
        for name in hidden:
            _collect(members.get(name), found)
        return {
            name: without_secrets(value, found, (*path, name))
            for name, value in members.items()
            if name not in hidden
        }
    if isinstance(body, list):
        return [without_secrets(item, found, path) for item in cast("list[object]", body)]
    return body


def _collect(value: object, found: list[str]) -> None:
    if isinstance(value, str):
        # "Bearer x" is a secret, and so is the x.
        found.extend(
            text for text in {value, value.rpartition(" ")[2]} if len(text) >= _LONG_ENOUGH
        )
    elif isinstance(value, dict):
        for inner in cast("dict[str, object]", value).values():
            _collect(inner, found)


def repeats(answer: bytes, secrets: Sequence[str]) -> bool:
    """Tell whether an answer holds one of its request's secrets, however JSON may write it."""
    return any(written in answer for secret in secrets for written in _written(secret))


def _written(secret: str) -> set[bytes]:
    plain = {_ENCODE(secret)[1:-1], json.dumps(secret)[1:-1].encode()}
    return plain | {text.replace(b"/", b"\\/") for text in plain}
