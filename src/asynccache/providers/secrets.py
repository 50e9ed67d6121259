"""Known secrets in request bodies: what is taken out before a key is made or anything is kept.

Those that OpenAI's reference names as such: `authorization` and `headers` of MCP tools, wherever a
tool may stand, and the values of a container's `domain_secrets`. Of a tool's `server_url` also the
user-info, and what of its query carries credentials in any URL.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final, cast
from urllib.parse import unquote

import msgspec

from asynccache.keys.denied import without_credentials

_OF_MCP_TOOLS: Final = ("authorization", "headers")
_URL: Final = "server_url"
_OF_DOMAIN_SECRETS: Final = ("value",)
_LONG_ENOUGH: Final = 8  # characters: a shorter secret may well stand in an answer by chance
_ENCODE: Final = msgspec.json.Encoder().encode


def may_hold_secrets(canonical: bytes) -> bool:
    """Tell at a glance whether a canonical body may hold secrets, as hardly any does."""
    return b'"mcp"' in canonical or b'"domain_secrets"' in canonical


def without_secrets(body: Any, found: list[str], list_name: str = "") -> Any:
    """Return a copy of a body less its secrets, which are added to a list.

    Args:
        body: Any part of a body.
        found: Takes the secrets.
        list_name: The name of the list that the part is an item of.
    """
    if isinstance(body, dict):
        members = cast("dict[str, Any]", body)
        hidden: Collection[str] = ()
        if list_name == "tools" and members.get("type") == "mcp":
            hidden = _OF_MCP_TOOLS
            if isinstance(url := members.get(_URL), str):
                plain, secrets = without_credentials(url)
                members = {**members, _URL: plain}
                for secret in secrets:
                    _collect(secret, found)
                    _collect(unquote(secret), found)
        elif list_name == "domain_secrets":
            hidden = _OF_DOMAIN_SECRETS
        for name in hidden:
            _collect(members.get(name), found)
        return {
            name: without_secrets(value, found, name)
            for name, value in members.items()
            if name not in hidden
        }
    if isinstance(body, list):
        items = cast("list[object]", body)
        return [without_secrets(item, found, list_name) for item in items]
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
