"""The synchronous client under gevent, whose `patch_all` makes greenlets of all threads."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from tests.helpers.openai_server import good

pytest_plugins = ("tests.helpers.openai_fixtures",)

SCRIPT = """
from gevent import monkey

monkey.patch_all()
import json, logging, sys
import gevent
from openai import OpenAI
import asynccache
from asynccache import Cache

logging.basicConfig(level=logging.WARNING)
url, store, path = sys.argv[1:]
ticks = 0

def ask(text):
    answer = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}]
    )
    status = asynccache.status(answer)
    return status and status.outcome

def open_and_ask(text):
    with opened:
        return ask(text)

def tick():
    global ticks
    while True:
        gevent.sleep(0.005)
        ticks += 1

with_cache = Cache.memory() if store == "memory" else Cache.disk(cache_path_root=path)
found = {}
with with_cache as opened:
    client = opened.wrap(OpenAI(base_url=url, api_key="k", max_retries=0))
    found["one"] = [ask("a"), ask("a")]
    gevent.spawn(tick)
    jobs = [gevent.spawn(open_and_ask, "b") for _ in range(20)]
    gevent.joinall(jobs, timeout=60)
    found["twenty"] = sorted(str(job.value) for job in jobs)
    found["others ran"] = ticks > 2
    stream = lambda: client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "c"}], stream=True
    )
    found["streams"] = [len(list(stream())), len(list(stream()))]
    found["value"] = [opened.get_or_create("k", lambda: 1), opened.get_or_create("k", lambda: 2)]
    found["bypassed"] = opened.stats().bypassed
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="gevent isn't installed on Windows")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("store", ["memory", "disk"])
async def test_greenlets_share_answers(store, api, tmp_path):
    """Calls are stored and shared, and while one waits the other greenlets go on."""

    async def program(seen):
        await asyncio.sleep(0.2)
        await good(seen)

    api.program = program
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", SCRIPT, api.base_url, store, str(tmp_path)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "one": ["miss", "hit"],
        "twenty": ["joined"] * 19 + ["miss"],
        "others ran": True,
        "streams": [3, 3],
        "value": [1, 1],
        "bypassed": 0,
    }
    assert not done.stderr
    assert len(api.requests) == 3
