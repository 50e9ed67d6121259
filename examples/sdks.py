"""The providers' SDKs, as the demo's agents use them: one class for each, over one cache."""

from __future__ import annotations

from typing import Any, Final, Protocol

import anthropic
import httpx2
import openai
from google import genai
from google.genai.errors import APIError

from asynccache import AsyncCache

SYSTEM = (
    "You belong to a team of engineers who answer each other's questions. Answer in plain words,"
    " state what you assume, name one source, and never pad. "
) * 8  # instructions of a usual length: they are sent with every turn
LONGEST = 200  # tokens of an answer
SDK_ERRORS: Final = (openai.OpenAIError, anthropic.AnthropicError, APIError)


class Provider(Protocol):
    """One provider's SDK: how its client is made, and how a conversation is sent by it.

    A conversation is what agent and model have said in turns, the agent first.
    """

    def __init__(self, cache: AsyncCache, url: str | None) -> None: ...

    async def whole(self, said: list[str]) -> str:
        """Return the answer to a conversation."""
        ...

    async def streamed(self, said: list[str]) -> str:
        """Return the same, read event by event."""
        ...

    async def close(self) -> None: ...


class OpenAI:
    """OpenAI's chat completions."""

    def __init__(self, cache: AsyncCache, url: str | None) -> None:
        # The mock server is near: no proxy may stand before it.
        http = openai.DefaultAsyncHttpxClient(trust_env=False) if url else None
        self.bare = openai.AsyncOpenAI(
            base_url=url, api_key="mock" if url else None, http_client=http
        )
        self.client: Any = cache.wrap(self.bare, upstream=named(url, "openai"))

    def asked(self, said: list[str]) -> dict[str, Any]:
        messages = [{"role": "system", "content": SYSTEM}, *turns(said, "assistant")]
        return {"model": "gpt-4o-mini", "messages": messages, "max_completion_tokens": LONGEST}

    async def whole(self, said: list[str]) -> str:
        response = await self.client.chat.completions.create(**self.asked(said))
        return response.choices[0].message.content or ""

    async def streamed(self, said: list[str]) -> str:
        stream = await self.client.chat.completions.create(
            **self.asked(said),
            stream=True,
            stream_options={"include_usage": True},  # else no one knows what it cost
        )
        async with stream:
            pieces = [event.choices[0].delta.content async for event in stream if event.choices]
        return "".join(piece or "" for piece in pieces)

    async def close(self) -> None:
        await self.bare.close()


class Anthropic:
    """Anthropic's messages."""

    def __init__(self, cache: AsyncCache, url: str | None) -> None:
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False) if url else None
        self.bare = anthropic.AsyncAnthropic(
            base_url=url, api_key="mock" if url else None, http_client=http
        )
        self.client: Any = cache.wrap(self.bare, upstream=named(url, "anthropic"))

    def asked(self, said: list[str]) -> dict[str, Any]:
        return {
            "model": "claude-haiku-4-5", "max_tokens": LONGEST, "system": SYSTEM,
            "messages": turns(said, "assistant"),
        }  # fmt: skip

    async def whole(self, said: list[str]) -> str:
        message = await self.client.messages.create(**self.asked(said))
        return "".join(block.text for block in message.content)

    async def streamed(self, said: list[str]) -> str:
        async with self.client.messages.stream(**self.asked(said)) as stream:
            return "".join([text async for text in stream.text_stream])

    async def close(self) -> None:
        await self.bare.close()


class Gemini:
    """Gemini's generateContent."""

    def __init__(self, cache: AsyncCache, url: str | None) -> None:
        self.http = httpx2.AsyncClient(trust_env=False, timeout=60) if url else None
        options: Any = {"base_url": url, "httpx_async_client": self.http} if url else {}
        options["api_version"] = "v1beta"
        self.bare = genai.Client(api_key="mock" if url else None, http_options=options)
        wrapped = cache.wrap(self.bare, upstream=named(url, "gemini"))
        self.models: Any = wrapped.aio.models

    def asked(self, said: list[str]) -> dict[str, Any]:
        contents = [
            {"role": turn["role"], "parts": [{"text": turn["content"]}]}
            for turn in turns(said, "model")
        ]
        config = {"system_instruction": SYSTEM, "max_output_tokens": LONGEST}
        return {"model": "gemini-2.5-flash", "contents": contents, "config": config}

    async def whole(self, said: list[str]) -> str:
        response = await self.models.generate_content(**self.asked(said))
        return response.text or ""

    async def streamed(self, said: list[str]) -> str:
        stream = await self.models.generate_content_stream(**self.asked(said))
        return "".join([event.text or "" async for event in stream])

    async def close(self) -> None:
        await self.bare.aio.aclose()
        self.bare.close()
        if self.http is not None:
            await self.http.aclose()


def named(url: str | None, provider: str) -> str | None:
    """Return a name for the mock server in keys, as its port changes from run to run."""
    return f"demo-{provider}" if url else None


def turns(said: list[str], model: str) -> list[dict[str, str]]:
    """Return a conversation as messages, with the name that the model has in them."""
    roles = ("user", model)
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(said)]


PROVIDERS: dict[str, tuple[type[Provider], str]] = {
    "OpenAI": (OpenAI, "OPENAI_API_KEY"),
    "Anthropic": (Anthropic, "ANTHROPIC_API_KEY"),
    "Gemini": (Gemini, "GEMINI_API_KEY"),
}
"""By their names: how to ask each, and where its key stands."""
