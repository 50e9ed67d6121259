"""What is secret in bodies is in no key, wherever the provider's requests have it."""

from __future__ import annotations

import copy

import pytest

from asynccache import NotCanonicalError
from asynccache.keys.canonical import canonical_json
from asynccache.providers.bodies import keyed_form
from asynccache.providers.secrets import repeats
from asynccache.providers.table import _KNOWN

ALL = {operation.name: operation for one in _KNOWN for operation in one.operations}
MISTRAL = next(one for one in _KNOWN if one.name == "mistral").operations[0]
CANARY = "hunter2-of-the-account"
URL = f"https://me:{CANARY}@mcp.example/sse?page=1&api_key={CANARY}"
CHATTING = [{"role": "user", "content": "Hello"}]

BODIES = {
    "an MCP server of Anthropic's": (
        ALL["anthropic-messages"],
        {"mcp_servers": [{"type": "url", "name": "n", "url": URL, "authorization_token": CANARY}]},
    ),
    "the same, where tokens are counted": (
        ALL["anthropic-tokens"],
        {"mcp_servers": [{"type": "url", "name": "n", "url": URL, "authorization_token": CANARY}]},
    ),
    "the same, at Vertex": (
        ALL["vertex-anthropic-messages"],
        {"mcp_servers": [{"type": "url", "name": "n", "url": URL, "authorization_token": CANARY}]},
    ),
    "a credit token": (ALL["anthropic-messages"], {"fallback_credit_token": CANARY}),
    "a credit token in an object": (
        ALL["anthropic-messages"],
        {"fallback_credit_token": {"token": CANARY, "expires": 1}},
    ),
    "an MCP server of Gemini's": (
        ALL["gemini-content"],
        {
            "tools": [
                {
                    "mcpServers": [
                        {"streamableHttpTransport": {"url": URL, "headers": {"X-Token": CANARY}}}
                    ]
                }
            ]
        },
    ),
    "the same, spelled otherwise": (
        ALL["gemini-content"],
        {"tools": [{"mcp_servers": [{"streamable_http_transport": {"headers": {"A": CANARY}}}]}]},
    ),
    "a key for maps": (
        ALL["gemini-content"],
        {"tools": [{"googleMaps": {"authConfig": {"apiKeyConfig": {"apiKeyString": CANARY}}}}]},
    ),
    "a key for a search": (
        ALL["gemini-tokens"],
        {"tools": [{"retrieval": {"externalApi": {"apiAuth": {"apiKeyConfig": {"k": CANARY}}}}}]},
    ),
    "a connector of Cohere's": (
        ALL["cohere-chat-v1"],
        {"connectors": [{"id": "c", "user_access_token": CANARY}]},
    ),
    "a connector of Mistral's": (
        MISTRAL,
        {
            "tools": [
                {
                    "type": "connector",
                    "connector_id": "c",
                    "authorization": {"type": "api-key", "value": CANARY},
                }
            ]
        },
    ),
    "an MCP tool": (
        ALL["openai-responses"],
        {"tools": [{"type": "mcp", "server_url": URL, "authorization": f"Bearer {CANARY}"}]},
    ),
}


def keyed(operation, body):
    """Return what of a body is in its key, and the secrets that are left out."""
    form = canonical_json(body)
    return keyed_form(body, form, operation=operation, ignore=(), normalize=None)


def replaced(part, by):
    """Return a part of a body in which the canary is another one."""
    if isinstance(part, dict):
        return {name: replaced(value, by) for name, value in part.items()}
    if isinstance(part, list):
        return [replaced(value, by) for value in part]
    return part.replace(CANARY, by) if isinstance(part, str) else part


@pytest.mark.parametrize(("operation", "body"), BODIES.values(), ids=BODIES)
def test_secrets_are_in_no_key(operation, body):
    """Two accounts' requests share an entry, and an answer that repeats a secret is known."""
    body = {"messages": CHATTING, **body}
    before = copy.deepcopy(body)
    form, secrets = keyed(operation, body)
    assert CANARY.encode() not in form
    assert CANARY in secrets
    assert repeats(f"Your key is {CANARY}.".encode(), secrets)
    assert keyed(operation, replaced(body, "another-account"))[0] == form
    assert body == before
    assert b"Hello" in form


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"name": "f", "input_schema": {"properties": {"mcp_servers": {"url": URL}}}}]},
        {"messages": [{"role": "user", "content": [{"fallback_credit_token": CANARY}]}]},
        {"metadata": {"mcp_servers": [{"authorization_token": CANARY}]}},
        {"mcp_servers": [{"name": CANARY, "url": "https://mcp.example/sse?page=1"}]},
    ],
)
def test_what_a_model_reads_is_in_the_key(body):
    """Names like those of secrets, at other places, say nothing."""
    operation = ALL["anthropic-messages"]
    form, secrets = keyed(operation, body)
    assert form == canonical_json(body)
    assert not secrets


STATEFUL = {
    "anthropic-messages": "container thread",
    "vertex-anthropic-messages": "container thread",
    "gemini-content": "cachedContent cached_content",
    "cohere-chat-v1": "conversation_id",
    "openai-chat": "background conversation",
    "openai-responses": "background conversation",
}


@pytest.mark.parametrize(
    ("name", "member"),
    [(name, member) for name, several in STATEFUL.items() for member in several.split()],
)
def test_requests_that_depend_on_state_have_no_key(name, member):
    """The server would answer otherwise, or change. Null and false say that nothing is there."""
    for there in ("x", {"id": "x"}, True):
        with pytest.raises(NotCanonicalError, match="state at the server"):
            keyed(ALL[name], {member: there})
    for absent in (None, False, ""):
        assert keyed(ALL[name], {member: absent})[0] == canonical_json({member: absent})


def test_what_is_one_providers_state_is_anothers_member():
    """A name means what it means in its protocol."""
    body = {"messages": CHATTING, "container": "x", "conversation_id": "y", "cachedContent": "z"}
    assert keyed(ALL["openai-chat"], body)[0] == canonical_json(body)
