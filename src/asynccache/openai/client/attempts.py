"""One caller's attempts at a call. A flight is one attempt, and each caller retries for itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from openai import APIError

from asynccache.cache.facade import WaitedTooLongError
from asynccache.openai.client import sdk
from asynccache.openai.client.call import KeyedCall, RawCall
from asynccache.providers.refusal import RefusedError

T = TypeVar("T")


class Attempts:
    """Makes attempts at a call by the SDK's own rules: how many, after which errors, how soon.

    Args:
        client: The SDK's.
        call: The call.
    """

    __slots__ = ("_call", "_client", "_idempotency_key", "_make", "_most", "retries")

    def __init__(self, client: Any, call: KeyedCall) -> None:
        self._client: Final = client
        self._call: Final = call
        self._most: Final = sdk.max_retries(client, call.way.patience(call.given)[1])
        self._idempotency_key: Final = sdk.idempotency_key(client)
        self._make: RawCall | None = None
        self.retries = 0
        """How many attempts failed before the one under way."""

    def make(self) -> RawCall:
        """Return what makes the call as it was when this was called first."""
        if self._make is None:
            self._make = self._call.way.again(self._call)
        return self._make

    def single(self, options: Any) -> Any:
        """Return the options of a request that the SDK sends for one attempt."""
        if not self._most:
            return options
        return sdk.single_attempt(options, self.retries, self._idempotency_key)

    async def until_answered(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the result of an attempt, the first one that succeeds.

        Raises:
            APIError: Of the last attempt.
        """
        while True:
            try:
                return await attempt()
            except Exception as exc:
                error = sdk.sdk_error(self._client, self._call.address.url, exc)
                if not isinstance(error, APIError):
                    raise
                if not await self._pause(error):
                    if error is exc:
                        raise
                    ours = isinstance(exc, WaitedTooLongError | RefusedError)
                    raise error from (None if ours else exc)
            self.retries += 1

    async def _pause(self, error: APIError) -> bool:
        """Wait before the next attempt; False at once if there is none."""
        if self.retries >= self._most or not sdk.is_retried(self._client, error):
            return False
        self.make()  # before the caller can change anything
        call = self._call
        path = call.endpoint.path
        sleep = sdk.sleep_for_retry(self._client, path, error, self.retries, self._most)
        await call.way.pause(sleep)
        return True
