"""What tests of LiteLLM ask, and how a server answers it."""

from __future__ import annotations

import asyncio

import litellm

from tests.helpers.openai_server import DONE, choice, chunk, sse


async def echo(seen):
    """Answer with the model and the last message, plain or streamed."""
    last = seen.body["messages"][-1]["content"]
    text = f"{seen.body['model']}: {last}"
    if seen.body.get("stream"):
        await seen.stream(sse(chunk(text)), sse(chunk("", finish="stop")), DONE)
    else:
        await seen.answer(choice(message={"role": "assistant", "content": text}))


def user(text):
    """Return a message of the user's."""
    return {"role": "user", "content": text}


async def text_of(answer):
    """Return the text of an answer, plain or streamed."""
    if isinstance(answer, litellm.CustomStreamWrapper):
        return "".join([part.choices[0].delta.content or "" async for part in answer])
    return answer.choices[0].message.content


async def stored(cache, count=1):
    """Wait until LiteLLM, which stores behind the caller's back, has stored so many."""
    while cache.stats().stored < count:
        await asyncio.sleep(0.01)


async def embed(seen):
    """Answer each input by its length."""
    texts = seen.body["input"]
    texts = [texts] if isinstance(texts, str) else texts
    data = [
        {"object": "embedding", "index": at, "embedding": [float(len(text))]}
        for at, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    await seen.answer({"object": "list", "model": "e", "data": data, "usage": usage})
