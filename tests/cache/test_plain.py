"""Statuses, events, figures and namespaces as plain data, for JSON encoders and web frameworks."""

from __future__ import annotations

import json
from typing import Any

import fastapi
import msgspec
import pydantic
import pytest

import asynccache
from asynccache import Cache, CallEvent, Stats, Status
from asynccache.keys.key import Namespace


async def create():
    """Return a value."""
    return 1


@pytest.fixture(params=["status", "parts", "event", "stats", "namespace"])
async def record(request):
    """One of each."""
    told: list[Any] = []
    async with Cache.memory("seed", tenant="ä/ö", observer=told.append) as cache:
        await cache.get_or_create("key", create)
        space = cache.settings.namespace
        return {
            "status": Status("hit", b"\xff" * 32, 1, 2_000_001, space),
            "parts": Status("hit", b"", 0, 2, space, (b"\xfe" * 32, b"\xff" * 32)),
            "event": told[0],
            "stats": cache.stats(),
            "namespace": space,
        }[request.param]


async def test_as_dict_is_what_json_encoders_take(record):
    """By itself, as a dict, and as what encoders ask for where they know no better."""
    plain = record.as_dict()
    assert json.loads(json.dumps(plain)) == plain == dict(record)
    assert json.loads(json.dumps({"it": record}, default=dict)) == {"it": plain}
    assert json.loads(msgspec.json.encode({"it": record}, enc_hook=dict))["it"]
    assert record.as_dict() is not record.as_dict()


async def test_pydantic_takes_it(record):
    """In a model of the user's, and by its type alone."""
    adapter = pydantic.TypeAdapter(type(record))
    assert adapter.validate_python(record) is record
    assert json.loads(adapter.dump_json(record)) == record.as_dict()
    for mode in ("validation", "serialization"):
        assert adapter.json_schema(mode=mode)["type"] == "object"
    assert adapter.json_schema(mode="serialization")["type"] == "object"


async def test_fastapi_takes_it(record):
    """As what a handler returns, with its return type told or not."""
    app = fastapi.FastAPI()

    @app.get("/untold")
    async def untold():
        return {"it": record}

    async def told():
        return record

    told.__annotations__["return"] = type(record)
    app.get("/told")(told)
    assert app.openapi()["paths"]["/told"]
    assert await get(app, "/untold") == {"it": record.as_dict()}
    assert await get(app, "/told") == record.as_dict()


async def get(app, path):
    """Return what an application answers."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [],
        "http_version": "1.1", "scheme": "http", "server": ("test", 80), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return json.loads(b"".join(message.get("body", b"") for message in sent))


async def test_what_a_status_says():
    """Keys are hexadecimal digits, the age and the namespace are told."""
    async with Cache.memory(tenant="acme") as cache:
        status = Status("joined", b"\x01" * 32, 1_000_000, 3_500_000, cache.settings.namespace)
    assert status.as_dict() == {
        "outcome": "joined",
        "key": "01" * 32,
        "age": 2.5,
        "recorded": 1_000_000,
        "served": 3_500_000,
        "namespace": {"seed": "42", "tenant": "acme"},
        "parts": [],
    }


def test_what_an_event_says():
    """All fields, tokens and tenant."""
    event = CallEvent(outcome="miss", endpoint="/x", namespace=Namespace("1", "acme"), waited=2.0)
    assert event.as_dict() == {
        "outcome": "miss", "endpoint": "/x", "namespace": {"seed": "1", "tenant": "acme"},
        "key": "", "model": "", "age": 0.0, "input_tokens": 0, "output_tokens": 0, "seconds": 0.0,
        "waited": 2.0, "reason": "", "paths": {}, "tokens": 0, "tenant": "acme", "provider": "",
        "cache_read_tokens": 0, "cache_write_tokens": 0,
    }  # fmt: skip
    assert set(Stats().as_dict()) >= {"hits", "calls", "hit_rate"}
    assert asynccache.status(object()) is None
