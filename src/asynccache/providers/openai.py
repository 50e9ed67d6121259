"""OpenAI, and all who speak its protocol: one table of operations, a line for each provider."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from asynccache.providers.chat import ChatFacts, choices_of, judge_chat
from asynccache.providers.provider import Provider, operation
from asynccache.providers.responses import ResponseFacts, judge_response

_DEPLOYMENT: Final = r"(?P<deployment>/deployments/[^/]+)?"
"""Azure's name for a model, before the endpoint's path."""
_SHARED: Final[dict[str, Any]] = {
    "stateful": "background conversation", "secretive": "messages input tools",
    "marks": (b'"mcp', b'"domain_secrets"'),
}  # fmt: skip

CHAT: Final = operation(
    "openai-chat", _DEPLOYMENT + "/chat/completions", "messages model", "choices",
    facts=ChatFacts, choices=choices_of, judge=judge_chat, **_SHARED,
)  # fmt: skip
RESPONSES: Final = operation(
    "openai-responses", "/responses", "model input", "output",
    facts=ResponseFacts, judge=judge_response, **_SHARED,
)  # fmt: skip
INPUT_TOKENS: Final = operation(
    "openai-input-tokens", "/responses/input_tokens", "input", "input_tokens", **_SHARED
)
COMPLETIONS: Final = operation(
    "openai-completions", _DEPLOYMENT + r"(?<!/chat)(?:/fim)?/completions", "model prompt",
    "choices", facts=ChatFacts, choices=choices_of, **_SHARED,
)  # fmt: skip
EMBEDDINGS: Final = operation(
    "openai-embeddings", _DEPLOYMENT + "/embeddings", "model input", "data",
    facts=ChatFacts, inputs="input", **_SHARED,
)  # fmt: skip
RERANK: Final = operation(
    "openai-rerank", "/rerank", "query documents", "results data", facts=ChatFacts, **_SHARED
)
OPERATIONS: Final = (CHAT, RESPONSES, INPUT_TOKENS, COMPLETIONS, EMBEDDINGS, RERANK)
_MISTRAL_CHAT: Final = replace(CHAT, marks=(*CHAT.marks, b'"connector"'))

_HOSTS: Final = {
    "openai": ("api.openai.com", ".api.openai.com"),
    "azure": (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
    "groq": ("api.groq.com",),
    "together": ("api.together.xyz", ".together.ai"),
    "cerebras": ("api.cerebras.ai",),
    "mistral": (".mistral.ai",),
    "deepseek": ("api.deepseek.com",),
    "xai": ("api.x.ai",),
    "openrouter": ("openrouter.ai",),
    "fireworks": ("api.fireworks.ai",),
    "huggingface": ("router.huggingface.co", ".endpoints.huggingface.cloud"),
}
_AGENTS: Final = {
    "openai": ("OpenAI/",), "groq": ("Groq/",), "together": ("Together/",),
    "cerebras": ("Cerebras/",), "mistral": ("mistral-client-python/", " mistralai"),
    "huggingface": ("hf_hub/",),
}  # fmt: skip
"""What is in the user agents of their clients."""
KEPT_HEADERS: Final = (
    "openai-model",
    "openai-organization",
    "openai-processing-ms",
    "openai-project",
    "openai-version",
    "apim-request-id",
    "azureml-model-session",
    "x-ms-deployment-name",
    "x-ms-rai-invoked",
    "x-ms-region",
)
PROVIDERS: Final = tuple(
    Provider(
        name=name,
        hosts=hosts,
        markers=tuple(("user-agent", part) for part in _AGENTS.get(name, ())),
        operations=OPERATIONS if name != "mistral" else (_MISTRAL_CHAT, *OPERATIONS[1:]),
        kept_headers=KEPT_HEADERS,
    )
    for name, hosts in _HOSTS.items()
)
LAST: Final = Provider(
    name="openai-compatible", operations=(CHAT,), anywhere=True, kept_headers=KEPT_HEADERS
)
"""Whoever else has chats like these."""
