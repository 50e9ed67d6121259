"""The one registry of fork hooks: what a fork must close before, and forget after, in the child."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

Hook = Callable[[], None]

_before: Final[list[Hook]] = []
_after_in_parent: Final[list[Hook]] = []
_after_in_child: Final[list[Hook]] = []


def at_fork(
    *,
    before: Hook | None = None,
    after_in_parent: Hook | None = None,
    after_in_child: Hook | None = None,
) -> None:
    """Register hooks for every later fork of this process.

    Hooks that run before a fork run in reverse order of registration; hooks that run after it run
    in order, as with `os.register_at_fork`.
    """
    for hook, hooks in (
        (before, _before),
        (after_in_parent, _after_in_parent),
        (after_in_child, _after_in_child),
    ):
        if hook is not None:
            hooks.append(hook)


def _run(hooks: list[Hook]) -> None:
    for hook in hooks:
        hook()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _run(_before[::-1]),
        after_in_parent=lambda: _run(_after_in_parent),
        after_in_child=lambda: _run(_after_in_child),
    )
