"""The examples with frameworks, each between the lines that its page leaves out."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from typing import NamedTuple

from tests.helpers.frameworks_server import Model
from tests.helpers.pages import PAGES, ROOT, Block, blocks_of

REDIS = "redis://localhost:6379/0"
_RUNNER = """
import asyncio, inspect, sys, types
from tests.helpers.pages import begun

for _ in range(2):
    session = sys.modules["session"] = types.ModuleType("session")
    with asyncio.Runner() as runner:
        for source in sys.argv[1:]:
            pending = begun(source, vars(session))
            if inspect.iscoroutine(pending):
                runner.run(pending)
"""


class Example(NamedTuple):
    """What a page leaves out around one of its examples."""

    before: str
    after: str = ""
    requests: int = 1
    """Calls that two runs make together."""


def examples_of(found):
    """Return parameters for `check_example`: each block of the pages named, and what is around.

    Args:
        found: Examples by page and heading, in order.
    """
    blocks: dict[tuple[str, str], list[Block]] = {}
    for page in PAGES:
        for block in blocks_of(page, "py"):
            blocks.setdefault((page.name, block.heading), []).append(block)
    return [
        (block, example)
        for place, examples in found.items()
        for block, example in zip(blocks[place], examples, strict=True)
    ]


async def check_example(api, folder, block, example, *, model=None, redis_url=REDIS):
    """Run an example twice, in a process of its own: what it paid once it doesn't pay again.

    Args:
        api: Answers.
        folder: Where it runs.
        block: What the page shows.
        example: What it doesn't.
        model: What answers, if not `Model`.
        redis_url: What takes the place of the pages' Redis.
    """
    api.program = model or Model()
    shown = block.source.replace(REDIS, redis_url)
    sources = [textwrap.dedent(source) for source in (example.before, shown, example.after)]
    surroundings = {
        "OPENAI_BASE_URL": api.base_url, "OPENAI_API_KEY": "sk-a",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would ask the internet for prices
    }  # fmt: skip
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _RUNNER, *sources],
        cwd=folder,
        env={**os.environ, **surroundings, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(api.requests) == example.requests, done.stdout + done.stderr
