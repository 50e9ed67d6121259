"""The one place where fork hooks are registered."""

from __future__ import annotations

import os
from collections.abc import Callable

Hook = Callable[[], object]


def at_fork(
    *,
    before: Hook | None = None,
    after_in_parent: Hook | None = None,
    after_in_child: Hook | None = None,
) -> None:
    """Register hooks for every later fork of this process; see `os.register_at_fork`.

    Nothing is registered where the platform can't fork.
    """
    hooks = {
        "before": before,
        "after_in_parent": after_in_parent,
        "after_in_child": after_in_child,
    }
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**{name: hook for name, hook in hooks.items() if hook is not None})
