"""Event loops with eager tasks: each takes its first step in the call that makes it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import tasks

if sys.version_info >= (3, 12):
    eager_tasks = asyncio.eager_task_factory
else:

    class _EagerTask(tasks._PyTask):  # type: ignore[name-defined,misc]
        """Stands in for Python 3.12's eager tasks, on asyncio's own loop."""

        def __init__(self, coro, *, loop, **options):
            super().__init__(coro, loop=loop, **options)
            if not loop.is_running():
                return
            first_step = loop._ready.pop()  # which was queued just now
            outer = asyncio.current_task(loop)
            if outer is not None:
                tasks._leave_task(loop, outer)
            try:
                first_step._run()
            finally:
                if outer is not None:
                    tasks._enter_task(loop, outer)

    def eager_tasks(loop, coro, **options):
        """Make a task, as a loop's task factory does."""
        return _EagerTask(coro, loop=loop, **options)


def eager_loop():
    """Return a new loop whose tasks are eager."""
    loop = asyncio.SelectorEventLoop()
    loop.set_task_factory(eager_tasks)
    return loop


WANTED = os.environ.get("ASYNCCACHE_TASKS") == "eager"
"""Whether all tests are to run on such loops."""

EAGER = ("asyncio", {"loop_factory": eager_loop})
"""The backend of anyio's pytest plugin that runs tests on such a loop."""
