"""The SDKs of all providers: how each has a client, and how each asks for the same things.

None is imported before it is used, as that takes seconds for all of them together. A way of asking
returns what the SDK returns; `outcome` and `sync_outcome` make plain data of it.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, NamedTuple

from pydantic import BaseModel

from tests.helpers.providers_answers import TOOL

KINDS = ("plain", "tools", "structured", "streamed", "streamed tools")
OTHERS = ("embeddings", "rerank", "tokens")
"""Kinds that not all have: the last counts the tokens of a request."""
KEY = "sk-test"
REGION = "us-east5"
MESSAGES: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY: Any = {"city": {"type": "string"}}
PARAMETERS: Any = {"type": "object", "properties": CITY, "required": ["city"]}
FUNCTION: Any = {"name": TOOL, "description": "Return the weather.", "parameters": PARAMETERS}
TOOLS: Any = {"tools": [{"type": "function", "function": FUNCTION}]}
STREAM: Any = {"stream": True}
RANKED: Any = {"query": "Which is in France?", "documents": ["Paris", "Rome"]}


class Weather(BaseModel):
    """What a structured answer holds."""

    city: str
    degrees: int


SCHEMA: Any = {**Weather.model_json_schema(), "additionalProperties": False}
FORMAT: Any = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "Weather", "schema": SCHEMA, "strict": True},
    }
}
SPECIAL: dict[str, dict] = {
    "tools": TOOLS, "structured": FORMAT, "streamed": STREAM, "streamed tools": TOOLS | STREAM,
}  # fmt: skip
"""How most SDKs are asked for a kind."""


def _as_it_is(client):
    return client


class Sdk:
    """An SDK over one HTTP library.

    Attributes:
        name: As it stands in the table.
        host: Where it goes if it is told nothing.
        module: What is imported.
        has_sync: Whether the SDK has a synchronous client that isn't another SDK's of the table.
        wrapped: Whether `wrap` takes its client; what has none is reached by `instrument` alone.
        others: Those of `OTHERS` that it has.
        like: What a server at another address has to be registered as, "" if a request tells.
    """

    name: str
    host: str
    module: str
    has_sync = True
    wrapped = True
    others: tuple[str, ...] = ()
    like = ""

    def is_there(self):
        """Tell whether it is installed."""
        return importlib.util.find_spec(self.module.partition(".")[0]) is not None

    def made(self, url, *, sync):
        """Return a client of a server, or, for "", of the provider's own."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, url, wrap=_as_it_is):
        """Have an asynchronous client until the block is left, or what a function makes of it."""
        async with wrap(self.made(url, sync=False)) as client:
            yield client

    @contextmanager
    def opened_sync(self, url, wrap=_as_it_is):
        """Have a synchronous client until the block is left, or what a function makes of it."""
        with wrap(self.made(url, sync=True)) as client:
            yield client

    def ask(self, client, kind):
        """Ask for a kind; what a synchronous client is asked for is there at once."""
        raise NotImplementedError

    def _imported(self):
        return importlib.import_module(self.module)


def _at(name, url, path=""):
    return {name: url + path} if url else {}


class Stainless(Sdk):
    """SDKs that one generator has made: OpenAI's and its kin."""

    def __init__(self, name, host, module, classes, model, *, path="", over="", others=()):
        self.name, self.host, self.module, self.others = name, host, module, others
        self._classes, self._model, self._path, self._over = classes, model, path, over
        self.has_sync = not over

    def made(self, url, *, sync):
        module = self._imported()
        options = {"http_client": getattr(module, self._over)()} if self._over else {}
        at = _at("base_url", url, self._path)
        kind = getattr(module, ("" if sync else "Async") + self._classes)
        return kind(api_key=KEY, max_retries=0, **at, **options)

    def ask(self, client, kind):
        if kind == "embeddings":
            return client.embeddings.create(model="embed", input="Paris")
        if kind == "rerank":
            return client.rerank.create(model="rank", **RANKED)
        return client.chat.completions.create(**self.asked(kind))

    def asked(self, kind):
        """Return the arguments that ask for a kind of chat."""
        return {"model": self._model, "messages": MESSAGES, **SPECIAL.get(kind, {})}


class Anthropic(Stainless):
    """Anthropic's own."""

    def ask(self, client, kind):
        if kind == "tokens":
            return client.messages.count_tokens(model=self._model, messages=MESSAGES)
        if kind == "structured":
            return client.messages.parse(**self.asked(kind), output_format=Weather)
        return client.messages.create(**self.asked(kind))

    def asked(self, kind):
        asked: dict = {"model": self._model, "max_tokens": 99, "messages": MESSAGES}
        if "tools" in kind:
            tool = {"name": TOOL, "description": "Return the weather."}
            asked["tools"] = [{**tool, "input_schema": PARAMETERS}]
        if kind.startswith("streamed"):
            asked["stream"] = True
        return asked


class AnthropicVertex(Anthropic):
    """Anthropic's own, for its models at Vertex AI."""

    like = "vertex"

    def made(self, url, *, sync):
        kind = getattr(self._imported(), ("" if sync else "Async") + self._classes)
        place = {"project_id": "p", "region": REGION, **_at("base_url", url, "/v1")}
        return kind(access_token=KEY, max_retries=0, **place)


class Sync(NamedTuple):
    """The synchronous side of a client that has both."""

    both: Any


class Mistral(Sdk):
    """Mistral's own: one client for both."""

    name, host, module = "mistralai", "api.mistral.ai", "mistralai.client"
    others = ("embeddings",)

    def made(self, url, *, sync):
        module = self._imported()
        if not hasattr(module, "Mistral"):  # before 2
            module = importlib.import_module("mistralai")
        return module.Mistral(api_key=KEY, **_at("server_url", url))

    @contextmanager
    def opened_sync(self, url, wrap=_as_it_is):
        with wrap(self.made(url, sync=True)) as client:
            yield Sync(client)

    def ask(self, client, kind):
        end = "" if isinstance(client, Sync) else "_async"
        client = client.both if isinstance(client, Sync) else client
        if kind == "embeddings":
            ask = getattr(client.embeddings, f"create{end}")
            return ask(model="mistral-embed", inputs=["Paris"])
        chat = client.chat
        asked = {"model": "mistral-small-latest", "messages": MESSAGES}
        if kind == "structured":
            return getattr(chat, f"parse{end}")(response_format=Weather, **asked)
        method = "stream" if kind.startswith("streamed") else "complete"
        tools = TOOLS if "tools" in kind else {}
        return getattr(chat, f"{method}{end}")(**asked, **tools)


class Gemini(Sdk):
    """google-genai, over aiohttp, which it prefers where that is installed, or over httpx."""

    host, module = "generativelanguage.googleapis.com", "google.genai"
    others = ("embeddings", "tokens")

    def __init__(self, name, over=""):
        self.name, self._over = name, over
        self.has_sync = bool(over)  # stands on httpx alone

    def _over_client(self, url, options):
        module = self._imported()
        at = module.types.HttpOptions(**_at("base_url", url), **options)
        return module.Client(api_key=KEY, http_options=at)

    @asynccontextmanager
    async def opened(self, url, wrap=_as_it_is):
        async with AsyncExitStack() as stack:
            options = {}
            if self._over:
                theirs = importlib.import_module(self._over).AsyncClient()
                options["httpx_async_client"] = await stack.enter_async_context(theirs)
            client = stack.enter_context(wrap(self._over_client(url, options)))
            await stack.enter_async_context(client.aio)
            yield client

    @contextmanager
    def opened_sync(self, url, wrap=_as_it_is):
        with wrap(self._over_client(url, {})) as client:
            yield Sync(client)

    def ask(self, client, kind):
        models = client.both.models if isinstance(client, Sync) else client.aio.models
        asked = {"model": "gemini-2.5-flash", "contents": MESSAGES[0]["content"]}
        if kind == "tokens":
            return models.count_tokens(**asked)
        if kind == "embeddings":
            return models.embed_content(model="gemini-embedding-001", contents="Paris")
        config: dict = {}
        if "tools" in kind:
            function = {name: FUNCTION[name] for name in ("name", "description")}
            function["parameters_json_schema"] = PARAMETERS
            config = {"tools": [{"function_declarations": [function]}]}
        if kind == "structured":
            config = {"response_mime_type": "application/json", "response_schema": Weather}
        if kind.startswith("streamed"):
            return models.generate_content_stream(**asked, config=config)
        return models.generate_content(**asked, config=config)


class GeminiVertex(Gemini):
    """google-genai, for its models at Vertex AI."""

    host = f"{REGION}-aiplatform.googleapis.com"
    like = "vertex"

    def _over_client(self, url, options):
        module = self._imported()
        credentials = importlib.import_module("google.oauth2.credentials").Credentials(token=KEY)
        at = module.types.HttpOptions(**_at("base_url", url), **options)
        place = {"project": "p", "location": REGION}
        return module.Client(vertexai=True, credentials=credentials, http_options=at, **place)


class Cohere(Sdk):
    """Cohere's own, version 2: over httpx-aiohttp where that is installed and nothing is said."""

    host, module = "api.cohere.com", "cohere"
    others = ("embeddings", "rerank")

    def __init__(self, name, over=""):
        self.name, self._over = name, over
        self.has_sync = bool(over)

    def made(self, url, *, sync):
        options = {}
        if self._over and not sync:
            options["httpx_client"] = importlib.import_module(self._over).AsyncClient(timeout=60)
        kind = getattr(self._imported(), "ClientV2" if sync else "AsyncClientV2")
        at = _at("base_url", url)
        return kind(api_key=KEY, log_warning_experimental_features=False, **at, **options)

    def ask(self, client, kind):
        if kind == "embeddings":
            return client.embed(
                model="embed-v4.0", texts=["Paris"], input_type="search_query",
                embedding_types=["float"],
            )  # fmt: skip
        if kind == "rerank":
            return client.rerank(model="rerank-v4.0", **RANKED)
        asked: dict = {"model": "command-a", "messages": MESSAGES}
        asked["request_options"] = {"max_retries": 0}
        if "tools" in kind:
            asked |= TOOLS
        if kind == "structured":
            asked["response_format"] = {"type": "json_object", "schema": SCHEMA}
        return (client.chat_stream if kind.startswith("streamed") else client.chat)(**asked)


class Ollama(Sdk):
    """Ollama's own."""

    name, host, module = "ollama", "ollama.com", "ollama"
    others = ("embeddings",)

    def made(self, url, *, sync):
        kind = getattr(self._imported(), "Client" if sync else "AsyncClient")
        return kind(host=url or f"https://{self.host}")

    def ask(self, client, kind):
        if kind == "embeddings":
            return client.embed(model="nomic-embed-text", input="Paris")
        special = {**SPECIAL, "structured": {"format": SCHEMA}}
        return client.chat(model="llama3.2", messages=MESSAGES, **special.get(kind, {}))


class HuggingFace(Sdk):
    """huggingface_hub's inference client."""

    name, host, module = "huggingface_hub", "router.huggingface.co", "huggingface_hub"

    def made(self, url, *, sync):
        kind = getattr(self._imported(), "InferenceClient" if sync else "AsyncInferenceClient")
        return kind(base_url=f"{url or 'https://' + self.host}/v1", api_key=KEY)

    def ask(self, client, kind):
        return client.chat_completion(
            model="meta-llama/Llama-3.3-70B-Instruct", messages=MESSAGES, **SPECIAL.get(kind, {})
        )


class LiteLLM(Sdk):
    """LiteLLM with the model of one provider: functions, not a client."""

    module = "litellm"
    wrapped = False

    def __init__(self, model, host, path="", like="", *, has_sync=False):
        self.name, self.host = f"litellm {model.partition('/')[0]}", host
        self._model, self._path, self.like, self.has_sync = model, path, like, has_sync

    def made(self, url, *, sync):
        module = self._imported()
        if not url and "ollama" in self.name:  # which it looks for at this machine
            url = f"https://{self.host}"
        at = _at("api_base", url, self._path)
        function = module.completion if sync else module.acompletion
        return partial(function, model=self._model, api_key=KEY, max_retries=0, **at)

    @asynccontextmanager
    async def opened(self, url, wrap=_as_it_is):
        yield self.made(url, sync=False)
        module = importlib.import_module("litellm.llms.custom_httpx.async_client_cleanup")
        await module.close_litellm_async_clients()
        self._imported().in_memory_llm_clients_cache.flush_cache()

    @contextmanager
    def opened_sync(self, url, wrap=_as_it_is):
        yield self.made(url, sync=True)
        clients = self._imported().in_memory_llm_clients_cache
        for client in clients.cache_dict.values():
            close = getattr(client, "close", None)
            if close is not None and not inspect.iscoroutinefunction(close):
                close()
        clients.flush_cache()

    def ask(self, client, kind):
        return client(messages=MESSAGES, **SPECIAL.get(kind, {}))


_HTTPX = "httpx2" if importlib.util.find_spec("httpx2") else "httpx"
_CLAUDE = ("api.anthropic.com", "anthropic", "Anthropic", "claude-sonnet-5")
_GPT = ("api.openai.com", "openai", "OpenAI", "gpt-4o")
_RANKS = ("embeddings", "rerank")
SDKS = {
    sdk.name: sdk
    for sdk in (
        Anthropic("anthropic", *_CLAUDE, others=("tokens",)),
        Anthropic("anthropic, aiohttp", *_CLAUDE, over="DefaultAioHttpClient"),
        AnthropicVertex(
            "anthropic, Vertex",
            f"{REGION}-aiplatform.googleapis.com",
            "anthropic",
            "AnthropicVertex",
            "claude-sonnet-5",
            others=("tokens",),
        ),
        Stainless("openai", *_GPT, path="/v1", others=("embeddings",)),
        Stainless("openai, aiohttp", *_GPT, path="/v1", over="DefaultAioHttpClient"),
        Gemini("google-genai, aiohttp"),
        Gemini("google-genai, httpx", _HTTPX),
        GeminiVertex("google-genai, Vertex", _HTTPX),
        Mistral(),
        Stainless("groq", "api.groq.com", "groq", "Groq", "openai/gpt-oss-20b"),
        Stainless(
            "together",
            "api-inference.together.ai",
            "together",
            "Together",
            "openai/gpt-oss-20b",
            others=_RANKS,
        ),
        Stainless("cerebras", "api.cerebras.ai", "cerebras.cloud.sdk", "Cerebras", "llama-3.3-70b"),
        Cohere("cohere, aiohttp"),
        Cohere("cohere, httpx", "httpx"),
        Ollama(),
        HuggingFace(),
        LiteLLM("anthropic/claude-sonnet-5", "api.anthropic.com", has_sync=True),
        LiteLLM("openai/gpt-4o", "api.openai.com", "/v1", has_sync=True),
        LiteLLM("gemini/gemini-2.5-flash", "generativelanguage.googleapis.com", like="gemini"),
        LiteLLM("groq/openai/gpt-oss-20b", "api.groq.com", "/openai/v1"),
        LiteLLM("mistral/mistral-small-latest", "api.mistral.ai", "/v1"),
        LiteLLM("ollama_chat/llama3.2", "ollama.com", like="ollama"),
    )
}


async def outcome(answer):
    """Return what an asynchronous client has given, as plain data."""
    if inspect.isawaitable(answer):
        answer = await answer
    if not hasattr(answer, "__aiter__"):
        return told(answer)
    events = [told(event) async for event in answer]
    if type(answer).__module__.startswith("litellm."):  # leaves its response open otherwise
        await answer.aclose()
    return events


def sync_outcome(answer):
    """Return what a synchronous client has given, as plain data."""
    if hasattr(answer, "__next__"):
        return [told(event) for event in answer]
    return told(answer)


def told(one):
    """Return all that can be told of an object of an SDK, less what each call has of its own."""
    if isinstance(one, BaseModel):
        dumped = one.model_dump(warnings=False)
        response = dumped.get("sdk_http_response")  # of google-genai: with the headers
        if response:
            response["headers"] = _lowered(response["headers"])["content-type"]
        if type(one).__module__.startswith("litellm."):  # it makes these up
            del dumped["id"], dumped["created"]
            for choice in dumped["choices"]:
                for call in (choice.get("message") or choice["delta"])["tool_calls"] or ():
                    del call["id"]
        return type(one), dumped, getattr(one, "_request_id", None)
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        return type(one), dataclasses.asdict(one)
    raise TypeError(f"nothing is known of {type(one)}")


def _lowered(headers):
    return {name.lower(): value for name, value in headers.items()}


def failure(error):
    """Return all that can be told of an error of an SDK."""
    response = getattr(error, "response", None) or getattr(error, "raw_response", None)
    headers = getattr(response, "headers", None) or getattr(error, "headers", None) or {}
    text = str(error)
    if "headers: " in text:  # of Cohere: with the date
        text = str(error.body)
    retry_after = _lowered(headers).get("retry-after")
    return type(error), text, getattr(error, "status_code", None), retry_after
