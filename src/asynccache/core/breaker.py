"""Stands between cache and store: a deadline on each call, and a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sized
from typing import Final, Literal, TypeVar, cast

from asynccache.core.counters import Counters
from asynccache.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from asynccache.runtime.clock import Clock
from asynccache.runtime.logs import warn_of

_log = logging.getLogger("asynccache")

T = TypeVar("T")
_FAILURES: Final = 5  # in a row, until the breaker opens
_FIRST_PAUSE: Final = 1.0  # seconds without asking, doubled by each failed probe
_LONGEST_PAUSE: Final = 30.0  # seconds: a store that is back is noticed within that
_LONGEST_PROBE: Final = 1.0  # seconds, until another call may probe too


class CircuitBreaker:
    """Runs store calls so that a failing store costs a bounded delay and a counter.

    Args:
        name: The store's name, for the log.
        clock: Measures the breaker's pauses.
        strict: Raise `StoreError` instead of returning the default.
        tell: Told of each failure, by the name that it is counted as.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        strict: bool,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state: Literal["closed", "open", "probing"] = "closed"
        self.prepare: Callable[[], Awaitable[None]] | None = None
        """Awaited before each call until it succeeds: opens a store that couldn't be opened."""
        self._name = name
        self._tell = tell
        self._clock = clock
        self.strict = strict
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._ask_again = 0.0
        self._probe: object = None
        self._probe_ends = 0.0
        self._seen: set[str] = set()

    async def run(
        self,
        call: Callable[[], Awaitable[T]],
        default: T,
        *,
        timeout: float,
        counters: Counters,
        count: int | None = None,
    ) -> T:
        """Await a store call for ``timeout`` seconds at most; on failure count, return ``default``.

        Another number of results than ``count``, where that is given, is a failure.

        Raises:
            StoreError: The call failed, and the breaker is strict.
        """
        try:
            return await self.insist(call, timeout=timeout, counters=counters, count=count)
        except StoreError:
            if self.strict:
                raise
            return default

    async def insist(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        timeout: float | None,
        counters: Counters,
        count: int | None = None,
    ) -> T:
        """Do as `run`, but raise: for what the user asked for and must not think done.

        ``timeout`` may be None, for what takes as long as it takes.

        Raises:
            StoreError: The call failed, or the breaker is open.
        """
        if not self._admits():
            counters.store_errors["breaker_open"] += 1
            raise StoreUnavailableError(f"{self._name} failed repeatedly and is asked again later")
        probe = None
        if self.state == "open" and timeout is not None:  # others don't wait for one without end
            self.state, self._probe = "probing", (probe := object())
            self._probe_ends = self._clock.monotonic() + _LONGEST_PROBE
        try:
            async with asyncio.timeout(timeout):
                if self.prepare is not None:
                    await self.prepare()
                result = await call()
            if count is not None and len(cast("Sized", result)) != count:
                raise StoreUnavailableError(  # noqa: TRY301 - counted as a failure, below
                    f"it gave {len(cast('Sized', result))} results for {count}:"
                    " it broke its contract"
                )
        except Exception as exc:  # noqa: BLE001 - a store that breaks its contract is a failing store
            error = exc
            if isinstance(exc, TimeoutError) and timeout is not None:
                error = StoreTimeoutError(f"{self._name} took over {timeout:g} s")
                error.__cause__ = exc
            noted = self.note(error, counters)
            raise noted from noted.__cause__
        else:
            self._answered()
            return result
        finally:
            # A probe whose caller went away, or whose loop stopped, says nothing of the store.
            if self.state == "probing" and self._probe is probe:
                self.state = "open"

    def note(self, error: Exception, counters: Counters) -> StoreError:
        """Count a failure, also one that an inline read met, and return it as a store's."""
        if not isinstance(error, StoreError):
            cause = error
            error = StoreUnavailableError(f"{self._name} broke its contract: {cause!r}")
            error.__cause__ = cause
        # A full or read-only store still answers: only silence and absence open the breaker, and
        # what keeps the store from being opened.
        if isinstance(error, StoreUnavailableError | StoreTimeoutError) or self.prepare is not None:
            self._failed()
        else:
            self._answered()
        name = _counted_as(error)
        counters.store_errors[name] += 1
        self._tell(name)
        if name not in self._seen:
            self._seen.add(name)
            warn_of(error, f"{self._name}: {error}; calls go on, further ones are only counted")
        return error

    def reset(self) -> None:
        """Forget past failures, as the store is opened anew."""
        self.state, self._failures, self._pause = "closed", 0, _FIRST_PAUSE
        self.prepare = None

    def _admits(self) -> bool:
        now = self._clock.monotonic()
        if self.state == "probing" and now >= self._probe_ends:
            self.state = "open"  # the probe's loop may have stopped: let another call try
        return self.state == "closed" or (self.state == "open" and now >= self._ask_again)

    def _answered(self) -> None:
        self._failures = 0
        if self.state != "closed":
            _log.info("%s answers again", self._name)
            self.reset()
            self._seen.clear()

    def _failed(self) -> None:
        self._failures += 1
        now = self._clock.monotonic()
        if self.state != "closed":
            if now < self._ask_again:
                return  # asked before the breaker opened
            self._pause = min(_LONGEST_PAUSE, self._pause * 2)
        elif self._failures != _FAILURES:
            return
        else:
            _log.info("%s failed %d times in a row; calls go past it", self._name, _FAILURES)
        self.state = "open"
        self._ask_again = now + self._pause


def _counted_as(error: StoreError) -> str:
    """Return ``timeout`` for `StoreTimeoutError`, and so on; ``error`` for an unnamed one."""
    return type(error).__name__.removeprefix("Store").removesuffix("Error").lower() or "error"
