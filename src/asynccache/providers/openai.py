"""OpenAI, and all who speak its protocol: one table of operations, a line for each provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from asynccache.providers.facts import Facts, ResponseFacts
from asynccache.providers.judging import judge_of
from asynccache.providers.provider import Operation, Provider

_DEPLOYMENT: Final = r"(?P<deployment>/deployments/[^/]+)?"
"""Azure's name for a model, before the endpoint's path."""


def _one(_: Mapping[str, Any]) -> int:
    return 1


CHAT: Final = Operation(
    name="openai-chat",
    path=re.compile(_DEPLOYMENT + r"/chat/completions$"),
    required=frozenset({"messages", "model"}),
    holds=frozenset({"choices"}),
    judge=partial(judge_of, "/chat/completions"),
    anywhere=True,
)
RESPONSES: Final = Operation(
    name="openai-responses",
    path=re.compile(r"/responses$"),
    required=frozenset({"model", "input"}),
    holds=frozenset({"output"}),
    facts=ResponseFacts,
    judge=partial(judge_of, "/responses"),
)
INPUT_TOKENS: Final = Operation(
    name="openai-input-tokens",
    path=re.compile(r"/responses/input_tokens$"),
    required=frozenset({"input"}),
    holds=frozenset({"input_tokens"}),
)
COMPLETIONS: Final = Operation(
    name="openai-completions",
    path=re.compile(_DEPLOYMENT + r"(?<!/chat)(?:/fim)?/completions$"),
    required=frozenset({"model", "prompt"}),
    holds=frozenset({"choices"}),
)
EMBEDDINGS: Final = Operation(
    name="openai-embeddings",
    path=re.compile(_DEPLOYMENT + r"/embeddings$"),
    required=frozenset({"model", "input"}),
    holds=frozenset({"data"}),
    choices=_one,
    inputs="input",
)
RERANK: Final = Operation(
    name="openai-rerank",
    path=re.compile(r"/rerank$"),
    required=frozenset({"query", "documents"}),
    holds=frozenset({"results", "data"}),
    facts=Facts,
    choices=_one,
)
OPERATIONS: Final = (CHAT, RESPONSES, INPUT_TOKENS, COMPLETIONS, EMBEDDINGS, RERANK)

_HOSTS: Final = {
    "openai": ("api.openai.com", ".api.openai.com"),
    "azure": (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
    "groq": ("api.groq.com",),
    "together": ("api.together.xyz", "api.together.ai"),
    "cerebras": ("api.cerebras.ai",),
    "mistral": ("api.mistral.ai",),
    "deepseek": ("api.deepseek.com",),
    "xai": ("api.x.ai",),
    "openrouter": ("openrouter.ai",),
    "fireworks": ("api.fireworks.ai",),
    "huggingface": ("router.huggingface.co", ".endpoints.huggingface.cloud"),
}
_AGENTS: Final = {
    "openai": ("OpenAI/", "AsyncOpenAI/", "AzureOpenAI/", "AsyncAzureOpenAI/"),
    "groq": ("Groq/", "AsyncGroq/"),
    "together": ("Together/", "AsyncTogether/"),
    "cerebras": ("Cerebras/", "AsyncCerebras/"),
    "mistral": ("mistral-client-python/",),
}
"""How the user agents of their clients begin."""
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
        markers=tuple(("user-agent", agent) for agent in _AGENTS.get(name, ())),
        operations=OPERATIONS,
        kept_headers=KEPT_HEADERS,
    )
    for name, hosts in _HOSTS.items()
)
