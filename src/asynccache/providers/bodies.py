"""From a request's JSON body to the form that keys are made of."""

from __future__ import annotations

from typing import Any, Final

from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json, without_paths
from asynccache.keys.denied import DENIED_MEMBERS
from asynccache.providers.call_ids import may_hold_calls, with_renamed_calls
from asynccache.providers.secrets import DOMAIN_SECRETS, MCP, without_secrets

STATEFUL: Final = frozenset({"background", "conversation"})
"""Members with which each call is another one, as it reads or changes state at the server."""
LOOKED_AT: Final = STATEFUL | DENIED_MEMBERS
"""Members with which a body isn't its own keyed form."""
_DENIED_PATHS: Final = tuple((name,) for name in DENIED_MEMBERS)


def keyed_form(
    data: dict[str, Any],
    canonical: bytes,
    *,
    ignore: tuple[tuple[str, ...], ...],
    rename_call_ids: bool,
) -> tuple[bytes, tuple[str, ...]]:
    """Return what of a body is in its key, and the secrets that are left out of it.

    Args:
        data: The body as plain data.
        canonical: Its canonical form.
        ignore: Paths that are left out.
        rename_call_ids: Number the ids of tool calls by their order.

    Raises:
        NotCanonicalError: The answer depends on state at the server.
    """
    if not STATEFUL.isdisjoint(data) and any(data.get(name) for name in STATEFUL):
        raise NotCanonicalError("it reads or changes state at the server")
    renamed = rename_call_ids and may_hold_calls(canonical)
    secrets: list[str] = []
    kept = without_paths(data, (*_DENIED_PATHS, *ignore))
    if renamed:
        kept = with_renamed_calls(kept)
    if MCP in canonical or DOMAIN_SECRETS in canonical:
        kept = without_secrets(kept, secrets)
    return canonical_json(kept), tuple(secrets)
