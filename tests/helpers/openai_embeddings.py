"""What an embeddings endpoint answers, and how an answer is compared with a bare client's."""

from __future__ import annotations

import array
import base64
import zlib

import asynccache

MODEL = "text-embedding-3-small"


def vector(one, dimensions=None):
    """Return the numbers that stand for an input: each input has its own, exact in four bytes."""
    seed = zlib.crc32(repr(one).encode())
    return [((seed >> shift) & 0xFF) / 256 for shift in (0, 8, 16)][: dimensions or 3]


def size_of(one):
    """Return how many tokens an input is."""
    return len(one)


def inputs_of(body):
    """Return the inputs of a request."""
    given = body["input"]
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        return [given]
    return given


def item(one, index, body, **changes):
    """Return one member of an answer's data."""
    numbers = vector(one, body.get("dimensions"))
    found: object = numbers
    if body.get("encoding_format") == "base64":
        found = base64.b64encode(array.array("f", numbers).tobytes()).decode()
    return {"object": "embedding", "index": index, "embedding": found, **changes}


def embeddings(body, **changes):
    """Return the answer to a request."""
    inputs = inputs_of(body)
    total = sum(map(size_of, inputs))
    return {
        "object": "list",
        "data": [item(one, at, body) for at, one in enumerate(inputs)],
        "model": body["model"],
        "usage": {"prompt_tokens": total, "total_tokens": total},
        **changes,
    }


async def embed(seen):
    """Answer as the API does."""
    await seen.answer(embeddings(seen.body))


def sent(api):
    """Return the inputs of each request that came in."""
    return [inputs_of(seen.body) for seen in api.requests]


def give(client, inputs, **changes):
    """Ask for embeddings."""
    return client.embeddings.create(**{"model": MODEL, "input": inputs, **changes})


def vectors(response):
    """Return the numbers of an answer, in its order."""
    return [one.embedding for one in response.data]


def seen_in(response):
    """Return all that a caller can see of an answer, but where it came from."""
    return {
        "type": type(response),
        "dump": response.model_dump(warnings=False),
        "json": response.model_dump_json(warnings=False),
        "unset": response.model_dump(exclude_unset=True, warnings=False),
        "dict": response.to_dict(warnings=False),
        "id": response._request_id,
        "fields": response.model_fields_set & type(response).model_fields.keys(),
        "extra": response.model_extra,
        "repr": repr(response),
        "items": [
            (type(one), one.index, one.model_fields_set, one.model_extra) for one in response.data
        ],
    }


def how(response):
    """Return an answer's outcome."""
    status = asynccache.status(response)
    assert status is not None
    return status.outcome
