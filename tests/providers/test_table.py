"""Whose a request is: by its host, by what its client says of itself, or as it was registered."""

from __future__ import annotations

import re

import httpx
import httpx2
import pytest
import yarl

from asynccache.providers import table
from asynccache.providers.openai import CHAT
from asynccache.providers.provider import Provider, operation
from asynccache.providers.table import endpoint, find, register
from tests.helpers.pages import ROOT

VERTEX = "us-central1-aiplatform.googleapis.com"
PLACE = "/v1/projects/p/locations/us-central1/publishers"
BEDROCK = "bedrock-runtime.us-east-1.amazonaws.com"

# Host, path, then: provider, operation, what of the path is the address, the model in the path.
FOUND = [
    ("api.openai.com", "/v1/chat/completions", "openai", "openai-chat", "/v1", ""),
    ("eu.api.openai.com", "/v1/responses", "openai", "openai-responses", "/v1", ""),
    ("api.openai.com", "/v1/responses/input_tokens", "openai", "openai-input-tokens", "/v1", ""),
    ("api.openai.com", "/v1/embeddings", "openai", "openai-embeddings", "/v1", ""),
    ("api.openai.com", "/v1/completions", "openai", "openai-completions", "/v1", ""),
    ("api.openai.com:443", "/v1/completions", "openai", "openai-completions", "/v1", ""),
    ("r.openai.azure.com", "/openai/deployments/d/chat/completions", "azure", "openai-chat",
     "/openai", ""),
    ("api.groq.com", "/openai/v1/chat/completions", "groq", "openai-chat", "/openai/v1", ""),
    ("api.together.xyz", "/v1/rerank", "together", "openai-rerank", "/v1", ""),
    ("api.cerebras.ai", "/v1/chat/completions", "cerebras", "openai-chat", "/v1", ""),
    ("api.mistral.ai", "/v1/chat/completions", "mistral", "openai-chat", "/v1", ""),
    ("api.mistral.ai", "/v1/fim/completions", "mistral", "openai-completions", "/v1", ""),
    ("api.deepseek.com", "/chat/completions", "deepseek", "openai-chat", "", ""),
    ("api.x.ai", "/v1/responses", "xai", "openai-responses", "/v1", ""),
    ("openrouter.ai", "/api/v1/chat/completions", "openrouter", "openai-chat", "/api/v1", ""),
    ("api.fireworks.ai", "/inference/v1/chat/completions", "fireworks", "openai-chat",
     "/inference/v1", ""),
    ("router.huggingface.co", "/v1/chat/completions", "huggingface", "openai-chat", "/v1", ""),
    ("api.anthropic.com", "/v1/messages", "anthropic", "anthropic-messages", "", ""),
    ("api.anthropic.com", "/v1/messages/count_tokens", "anthropic", "anthropic-tokens", "", ""),
    ("api.anthropic.com", "/v1/chat/completions", "anthropic", "openai-chat", "/v1", ""),
    ("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-flash:generateContent",
     "gemini", "gemini-content", "/v1beta", "gemini-2.5-flash"),
    ("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
     "gemini", "gemini-content", "/v1beta", "gemini-2.5-flash"),
    ("generativelanguage.googleapis.com", "/v1beta/tunedModels/t:generateContent", "gemini",
     "gemini-content", "/v1beta", "t"),
    ("generativelanguage.googleapis.com", "/v1beta/models/m:countTokens", "gemini",
     "gemini-tokens", "/v1beta", "m"),
    ("generativelanguage.googleapis.com", "/v1beta/models/m:embedContent", "gemini",
     "gemini-embed", "/v1beta", "m"),
    ("generativelanguage.googleapis.com", "/v1beta/models/m:batchEmbedContents", "gemini",
     "gemini-embeds", "/v1beta", "m"),
    ("generativelanguage.googleapis.com", "/v1beta/openai/chat/completions", "gemini",
     "openai-chat", "/v1beta/openai", ""),
    (VERTEX, f"{PLACE}/google/models/m:generateContent", "vertex", "gemini-content",
     f"{PLACE}/google", "m"),
    ("aiplatform.googleapis.com", f"{PLACE}/google/models/m:countTokens", "vertex",
     "gemini-tokens", f"{PLACE}/google", "m"),
    ("aiplatform.us.rep.googleapis.com", f"{PLACE}/anthropic/models/claude@1:rawPredict", "vertex",
     "vertex-anthropic-messages", f"{PLACE}/anthropic", "claude@1"),
    (VERTEX, f"{PLACE}/anthropic/models/claude%401:streamRawPredict", "vertex",
     "vertex-anthropic-messages", f"{PLACE}/anthropic", "claude@1"),
    (VERTEX, f"{PLACE}/anthropic/models/count-tokens:rawPredict", "vertex",
     "vertex-anthropic-tokens", f"{PLACE}/anthropic", ""),
    (VERTEX, f"{PLACE}/mistralai/models/m:rawPredict", "vertex", "vertex-chat",
     f"{PLACE}/mistralai", "m"),
    (VERTEX, f"{PLACE}/google/models/text-embedding-005:predict", "vertex", "vertex-embed",
     f"{PLACE}/google", "text-embedding-005"),
    ("api.cohere.com", "/v2/chat", "cohere", "cohere-chat", "", ""),
    ("api.cohere.com", "/v1/chat", "cohere", "cohere-chat-v1", "", ""),
    ("api.cohere.ai", "/v2/embed", "cohere", "cohere-embed", "", ""),
    ("api.cohere.com", "/v2/rerank", "cohere", "cohere-rerank", "", ""),
    ("api.cohere.com", "/v1/tokenize", "cohere", "cohere-tokenize", "", ""),
    ("localhost:11434", "/api/chat", "ollama", "ollama-chat", "", ""),
    ("127.0.0.1:11434", "/api/generate", "ollama", "ollama-generate", "", ""),
    ("[::1]:11434", "/api/embed", "ollama", "ollama-embed", "", ""),
    ("ollama.com", "/api/embeddings", "ollama", "ollama-embeddings", "", ""),
    ("localhost:11434", "/v1/embeddings", "ollama", "openai-embeddings", "/v1", ""),
    ("llm.corp", "/v1/chat/completions", "openai-compatible", "openai-chat", "/v1", ""),
]  # fmt: skip


@pytest.fixture(autouse=True)
def unregistered(monkeypatch):
    """Forget after each test what it has registered."""
    monkeypatch.setattr(table, "_table", table._table)


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found[0] + found[1])
def test_found_by_host(found):
    """The host says whose a request is, and the path what it asks for."""
    host, path, provider, named, before, model = found
    match = find(host, path, {})
    assert match is not None
    assert (match.provider.name, match.operation.name) == (provider, named)
    assert (match.place.before, match.place.model) == (before, model)
    assert match.place.before + match.place.deployment + match.place.path == path


def test_names_are_of_their_own():
    """What an operation is called says which it is; each asks for something and gives something."""
    operations = {one for known in table._KNOWN for one in known.operations}
    by_name: dict = {}
    for one in operations:
        by_name.setdefault(one.name, []).append(one)
    assert [*by_name] == [*{one.name: 1 for one in operations}]
    assert {name for name, several in by_name.items() if len(several) > 1} == {"openai-chat"}
    assert all(one.required and one.holds for one in operations)
    names = [known.name for known in table._KNOWN]
    assert len(names) == len({*names})


def test_a_deployment_is_apart():
    """It stands between the address and the endpoint's path."""
    match = find("r.openai.azure.com", "/openai/deployments/gpt-4o/embeddings", {})
    assert match is not None
    assert (match.place.before, match.place.deployment, match.place.path) == (
        "/openai",
        "/deployments/gpt-4o",
        "/embeddings",
    )


def test_the_example_for_contributors_is_the_real_one():
    """What the page shows of a provider stands in its file, which is short."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    shown = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    folder = ROOT / "src/asynccache/providers"
    assert len(shown) == 2
    assert all(block in (folder / "ollama.py").read_text() for block in shown)
    for known in ("anthropic", "cohere", "gemini", "ollama", "openai", "vertex"):
        assert len((folder / f"{known}.py").read_text().splitlines()) <= 120


# -- what isn't anybody's -------------------------------------------------------------------------

ELSEWHERE = sorted({path for _, path, *_ in FOUND if not path.endswith("/chat/completions")})


@pytest.mark.parametrize("path", ELSEWHERE)
def test_the_same_path_elsewhere_is_nobodys(path):
    """Other people's APIs have the same paths: a path alone says nothing."""
    for host in ("api.example.com", "localhost:8000", "api.openai.com.evil.example", BEDROCK):
        assert find(host, path, {"user-agent": "python-httpx2/2.16", "x-api-key": "k"}) is None


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("api.openai.com", "/v1/files"),
        ("api.openai.com", "/v1/chat/completions/chatcmpl-1/messages"),
        ("api.openai.com", "/v1/responses/resp_1/cancel"),
        ("api.openai.com", "/v1/images/generations"),
        ("api.openai.com", "/v1/batches"),
        ("api.anthropic.com", "/v1/messages/batches"),
        ("api.anthropic.com", "/v1/files"),
        ("api.mistral.ai", "/v1/conversations"),
        ("api.mistral.ai", "/v1/agents"),
        ("generativelanguage.googleapis.com", "/v1beta/interactions"),
        ("generativelanguage.googleapis.com", "/v1beta/cachedContents"),
        ("generativelanguage.googleapis.com", "/upload/v1beta/files"),
        ("api.cohere.com", "/v1/classify"),
        ("localhost:11434", "/api/show"),
        ("localhost:11434", "/api/pull"),
        ("localhost:11435", "/api/chat"),
        (VERTEX, f"{PLACE}/google/models/imagen-4:predict"),
        (VERTEX, f"{PLACE}/meta/models/llama:rawPredict"),
    ],
)
def test_other_endpoints_of_a_provider_are_nobodys(host, path):
    """What reads or changes state, or is no answer of a model, passes."""
    assert find(host, path, {}) is None


def test_agents_of_mistral_lack_what_is_required():
    """Their path ends as that of completions, and an agent may change at the server."""
    match = find("api.mistral.ai", "/v1/agents/completions", {})
    assert match is None or not match.operation.required <= {"messages", "agent_id"}


# -- markers --------------------------------------------------------------------------------------

MARKED = [
    ("anthropic-version", "2023-06-01", "/proxy/v1/messages", "anthropic", "/proxy"),
    ("anthropic-version", "2026-10-21", "/v1/messages/count_tokens", "anthropic", ""),
    ("user-agent", "AsyncOpenAI/Python 3.57.0", "/v1/embeddings", "openai", "/v1"),
    ("user-agent", "OpenAI/Python 2.17.0", "/v1/responses", "openai", "/v1"),
    ("user-agent", "AsyncOpenAI/Python 3.57.0", "/v1/chat/completions", "openai", "/v1"),
    ("user-agent", "AsyncGroq/Python 1.7.0", "/openai/v1/chat/completions", "groq", "/openai/v1"),
    ("user-agent", "AsyncCerebras/Python 1.91", "/v1/chat/completions", "cerebras", "/v1"),
    ("user-agent", "AsyncTogether/Python 3.1.1", "/v1/rerank", "together", "/v1"),
    ("user-agent", "speakeasy-sdk/python 3.7.0 2.935.1 1.0.0 mistralai", "/v1/embeddings",
     "mistral", "/v1"),
    ("user-agent", "unknown/None; hf_hub/2.4.0; python/3.11", "/v1/chat/completions",
     "huggingface", "/v1"),
    ("user-agent", "AsyncAzureOpenAI/Python 2.17.0", "/deployments/d/embeddings", "openai", ""),
    ("user-agent", "cohere/7.3.1", "/v2/chat", "cohere", ""),
    ("x-fern-sdk-name", "cohere", "/v2/rerank", "cohere", ""),
    ("user-agent", "ollama-python/0.6.3 (x86_64 linux)", "/api/chat", "ollama", ""),
    ("x-goog-api-client", "google-genai-sdk/3.6.1", "/v1beta/models/m:generateContent", "gemini",
     "/v1beta"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "path", "provider", "before"), MARKED)
def test_found_by_what_clients_say(name, value, path, provider, before):
    """The provider's own clients say so in a header, wherever they send their requests."""
    match = find("127.0.0.1:8123", path, {name: value, "accept": "*/*"})
    assert match is not None
    assert (match.provider.name, match.place.before) == (provider, before)
    assert find("127.0.0.1:8123", "/v1/other", {name: value}) is None


def test_the_host_says_more_than_the_client():
    """OpenAI's SDK asks Groq as well."""
    match = find(
        "api.groq.com", "/openai/v1/chat/completions", {"user-agent": "AsyncOpenAI/Python"}
    )
    assert match is not None
    assert match.provider.name == "groq"


def test_names_of_hosts():
    """A host is a provider's, whatever is asked."""
    assert table.name_at("api.groq.com") == "groq"
    assert table.name_at("localhost:11434") == "ollama"
    assert table.name_at("llm.corp") == ""


# -- one's own ------------------------------------------------------------------------------------


def test_a_server_of_ones_own():
    """Its base URL is enough, and what stands below it is found as at the provider."""
    version = table.version()
    register(endpoint("https://LLM.corp:443/team/v1/", like="openai-embeddings"))
    match = find("llm.corp", "/team/v1/embeddings", {})
    assert match is not None
    assert (match.provider.name, match.place.before, match.place.path) == (
        "llm.corp",
        "/team/v1",
        "/embeddings",
    )
    assert table.version() != version
    assert find("llm.corp", "/team/v10/embeddings", {}) is None
    assert find("llm.corp", "/embeddings", {}) is None
    assert find("llm.corp", "/team/v1/rerank", {}) is None


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://Bücher.example/v1", "https://bücher.example/v1"),
        ("https://faß.example", "https://faß.example"),
        ("http://[0:0::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://[0:0::1]/v1", "http://[0:0::1]/v1"),
        ("https://llm.corp/a b/ä", "https://llm.corp/a b/ä"),
        ("https://llm.corp/%7Eteam", "https://llm.corp/~team"),
        ("https://llm.corp/~team", "https://llm.corp/%7eteam"),
        ("https://llm.corp:8443/v1", "https://llm.corp:8443/v1"),
        ("https://me:secret@llm.corp:443/v1", "https://llm.corp/v1"),
    ],
)
@pytest.mark.parametrize("library", [httpx.URL, httpx2.URL, yarl.URL])
def test_a_url_is_found_however_it_is_spelled(library, url, sent):
    """What each library sends for a URL is found."""
    register(endpoint(url, like="openai-chat"))
    request = library(f"{sent}/chat/completions")
    if library is yarl.URL:
        host, path = request.host_port_subcomponent, request.raw_path
    else:
        host, path = request.netloc.decode(), request.raw_path.decode()
    match = find(host, path, {})
    assert match is not None
    assert match.provider is table._table.registered[0]


@pytest.mark.parametrize("host", ["llm.corp:99", "llm.corp.", "allm.corp", "llm.corp:4430"])
def test_another_port_is_another_server(host):
    """A URL without a port means the usual one."""
    register(endpoint("https://llm.corp", like="anthropic"))
    assert find("llm.corp:443", "/v1/messages", {}) is not None
    assert find(host, "/v1/messages", {}) is None


def test_a_server_of_several_protocols():
    """Each that is registered is found, by its path alone or below a base of its own."""
    register(endpoint("https://proxy.corp", like="anthropic"))
    register(endpoint("https://proxy.corp/gemini", like="gemini"))
    register(endpoint("https://proxy.corp", like="ollama"))
    register(endpoint("https://proxy.corp", like="ollama"))
    for path, name in (
        ("/v1/messages", "anthropic-messages"),
        ("/gemini/v1beta/models/m:generateContent", "gemini-content"),
        ("/api/chat", "ollama-chat"),
    ):
        match = find("proxy.corp", path, {})
        assert match is not None
        assert match.operation.name == name
    assert sum(one.name == "proxy.corp" for one in table._table.registered) == 3


def test_the_whole_url_of_an_endpoint():
    """Where it doesn't end as the provider's does, it is taken as it is."""
    register(endpoint("http://127.0.0.1:8000/ask", like="openai-chat"))
    match = find("127.0.0.1:8000", "/ask", {})
    assert match is not None
    assert (match.operation.facts, match.place.before, match.place.path) == (CHAT.facts, "", "/ask")
    assert find("127.0.0.1:8000", "/ask/more", {}) is None


def test_all_of_a_provider():
    """The provider's name stands for all that it does, where the server is no other one's."""
    register(endpoint("http://gateway.corp", like="anthropic"))
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        assert find("gateway.corp", path, {}) is not None
    assert find("gateway.corp", "/v2/chat", {}) is None
    match = find("elsewhere.corp", "/v1/chat/completions", {})
    assert match is not None
    assert match.provider.name == "openai-compatible"


def test_the_latest_registration_holds():
    """One that differs in nothing that is matched takes the other's place."""
    register(endpoint("https://llm.corp/v1", like="openai-embeddings"))
    latest = endpoint("https://llm.corp/v1", like="openai-embeddings")
    register(latest)
    match = find("llm.corp", "/v1/embeddings", {})
    assert match is not None
    assert match.provider is latest
    assert sum(one.name == "llm.corp" for one in table._table.registered) == 1


def test_a_provider_of_ones_own():
    """It may have a marker of its own, and come before those that are known."""
    mine = Provider(
        name="mine",
        markers=(("x-mine", "1"),),
        operations=(operation("mine-ask", "/ask", "question", "answer"),),
    )
    register(mine)
    match = find("api.openai.com", "/ask", {"x-mine": "1.2"})
    assert match is not None
    assert match.provider is mine
    assert find("api.openai.com", "/ask", {}) is None
    assert find("api.openai.com", "/ask", {"x-mine": "2"}) is None


@pytest.mark.parametrize("url", ["llm.corp/v1", "ftp://llm.corp", "", "https://"])
def test_a_url_that_is_none(url):
    """The error shows one."""
    with pytest.raises(ValueError, match=re.escape('write it like "https://llm.corp/v1"')):
        endpoint(url, like="openai-chat")


def test_a_protocol_that_is_unknown():
    """The error names those that are known."""
    with pytest.raises(ValueError, match=r"'soap'.*anthropic-messages.*openai-chat"):
        endpoint("https://llm.corp/v1", like="soap")


def test_what_is_no_provider():
    """The error says what to pass."""
    with pytest.raises(TypeError, match=r"not a str.*endpoint\(") as caught:
        register("https://llm.corp/v1")  # type: ignore[arg-type]
    assert "openai-chat" in str(caught.value)
    with pytest.raises(ValueError, match="part of a value"):
        register(Provider(name="mine", operations=(), markers=(("accept", ""),)))
