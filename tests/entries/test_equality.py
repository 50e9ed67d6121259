"""Objects compared with what their bytes gave back: what counts, and what does not."""

from __future__ import annotations

import copy
import dataclasses
import functools
import threading

import pydantic
import pytest

from asynccache.entries.equality import difference


class Working:
    """Works something out once, and keeps it."""

    def __init__(self, x):
        self.x = x

    @functools.cached_property
    def lock(self):
        """Return what can't be copied."""
        return threading.Lock()


@dataclasses.dataclass
class WorkingDot:
    """Does so beside its fields."""

    x: int

    @functools.cached_property
    def twice(self):
        """Return a number."""
        return self.x * 2


class WorkingModel(pydantic.BaseModel):
    """So does this."""

    x: int

    @functools.cached_property
    def twice(self):
        """Return a number."""
        return self.x * 2


@pytest.mark.parametrize("made", [Working, WorkingDot, lambda x: WorkingModel(x=x)])
def test_what_was_worked_out_is_no_difference(made):
    """An object whose cached property was read is the same as one whose wasn't."""
    one, other = made(1), made(1)
    assert getattr(one, "lock", None) or one.twice
    assert difference(one, other) is difference(other, one) is None
    assert difference([one], [other]) is None
    assert difference(one, made(2)) is not None
    more = copy.copy(other)
    object.__setattr__(more, "__dict__", {**vars(other), "more": 1})
    assert difference(one, more) is not None
