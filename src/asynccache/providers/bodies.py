"""From a request's JSON body to the form that keys are made of."""

from __future__ import annotations

from typing import Any, Final

from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json, without_paths
from asynccache.keys.denied import DENIED_MEMBERS
from asynccache.keys.normalizer import Normalization
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
    normalize: Normalization | None,
) -> tuple[bytes, tuple[str, ...]]:
    """Return what of a body is in its key, and the secrets that are left out of it.

    Args:
        data: The body as plain data.
        canonical: Its canonical form.
        ignore: Paths that are left out.
        normalize: What is applied to the rest; None for nothing.

    Raises:
        NotCanonicalError: The answer depends on state at the server, or a normalizer failed.
    """
    if not STATEFUL.isdisjoint(data) and any(data.get(name) for name in STATEFUL):
        raise NotCanonicalError("it reads or changes state at the server")
    secrets: list[str] = []
    kept = without_paths(data, (*_DENIED_PATHS, *ignore))
    if MCP in canonical or DOMAIN_SECRETS in canonical:
        kept = without_secrets(kept, secrets)
    form = kept if normalize is None else normalize.form(canonical_json(kept))
    if "stream" in data:  # whatever was left out: a plain answer is none to a streamed request
        form = {**form, "stream": data["stream"]}
    return canonical_json(form), tuple(secrets)
