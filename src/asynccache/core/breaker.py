"""Stands between cache and store: a deadline on each call, and a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sized
from typing import Final, Literal, TypeVar, cast

from asynccache.core.counters import Counters
from asynccache.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from asynccache.runtime.clock import Clock

_log = logging.getLogger("asynccache")

T = TypeVar("T")
_FAILURES: Final = 5  # in a row, until the breaker opens
_FIRST_PAUSE: Final = 1.0  # seconds without asking, doubled by each failed probe
_LONGEST_PAUSE: Final = 30.0  # seconds: a store that is back is noticed within that


class CircuitBreaker:
    """Runs store calls so that a failing store costs a bounded delay and a counter.

    Args:
        name: The store's name, for the log.
        clock: Measures the breaker's pauses.
        strict: Raise `StoreError` instead of returning the default.
    """

    def __init__(self, name: str, clock: Clock, *, strict: bool) -> None:
        self.state: Literal["closed", "open", "probing"] = "closed"
        self.prepare: Callable[[], Awaitable[None]] | None = None
        """Awaited before each call until it succeeds: opens a store that couldn't be opened."""
        self._name = name
        self._clock = clock
        self.strict = strict
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._ask_again = 0.0
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
        except asyncio.CancelledError:
            if self.state == "probing":  # this was the probe, and nobody else would make one
                self.state = "open"
            raise
        except TimeoutError as exc:
            error: Exception = StoreTimeoutError(f"{self._name} took over {timeout:g} s")
            error.__cause__ = exc
        except Exception as exc:  # noqa: BLE001 - a store that breaks its contract is a failing store
            error = exc
        else:
            self._succeeded()
            return result
        raise self.note(error, counters)

    def note(self, error: Exception, counters: Counters) -> StoreError:
        """Count a failure, also one that an inline read met, and return it as a store's."""
        if not isinstance(error, StoreError):
            cause = error
            error = StoreUnavailableError(f"{self._name} broke its contract: {cause!r}")
            error.__cause__ = cause
        name = _counted_as(error)
        counters.store_errors[name] += 1
        if name not in self._seen:
            self._seen.add(name)
            _log.warning(
                "%s: %s; calls go on, further ones are only counted", self._name, error,
                exc_info=error if isinstance(error.__cause__, Exception) else None,
            )  # fmt: skip
        # A full or read-only store still answers: only silence and absence open the breaker.
        if isinstance(error, StoreUnavailableError | StoreTimeoutError):
            self._failed()
        return error

    def reset(self) -> None:
        """Forget past failures, as the store is opened anew."""
        self.state, self._failures, self._pause = "closed", 0, _FIRST_PAUSE
        self.prepare = None

    def _admits(self) -> bool:
        if self.state == "closed":
            return True
        if self.state == "open" and self._clock.monotonic() >= self._ask_again:
            self.state = "probing"
            return True
        return False

    def _succeeded(self) -> None:
        self._failures = 0
        if self.state != "closed":
            _log.info("%s answers again", self._name)
            self.reset()
            self._seen.clear()

    def _failed(self) -> None:
        self._failures += 1
        if self.state == "probing":
            self._pause = min(_LONGEST_PAUSE, self._pause * 2)
        elif self._failures != _FAILURES or self.state == "open":
            return
        else:
            _log.warning("%s failed %d times in a row; calls go past it", self._name, _FAILURES)
        self.state = "open"
        self._ask_again = self._clock.monotonic() + self._pause


def _counted_as(error: StoreError) -> str:
    """Return ``timeout`` for `StoreTimeoutError`, and so on; ``error`` for an unnamed one."""
    return type(error).__name__.removeprefix("Store").removesuffix("Error").lower() or "error"
