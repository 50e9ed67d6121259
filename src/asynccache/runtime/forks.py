"""The one place where fork hooks are registered."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Protocol
from weakref import WeakSet

Hook = Callable[[], object]


class Forgetting(Protocol):
    """What has something that a forked child must not use."""

    def forget(self) -> None:
        """Forget, in a forked child, what belongs to the parent, without closing it."""
        ...


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


_FORGETTING: Final[WeakSet[Forgetting]] = WeakSet()


def forget_in_child(each: Forgetting) -> None:
    """Have ``each.forget()`` called in every forked child, for as long as the object lives."""
    _FORGETTING.add(each)


def _forget_all() -> None:
    for each in list(_FORGETTING):
        each.forget()


at_fork(after_in_child=_forget_all)
