"""An answer that isn't 2xx, on its way to all whom it is true for."""

from __future__ import annotations

from typing import Final

from asynccache.providers.answers import Received

_BAD: Final = 400  # HTTP's own: the client's fault
_SERVER_ERROR: Final = 500  # HTTP's own: from here on it isn't the request's fault
_OF_ACCOUNT: Final = frozenset({401, 402, 403, 404, 429})
"""What is said of rights, money, what there is for somebody, and how much is asked for."""
_MOVED: Final = 300  # HTTP's own: up to the errors of servers, who asks decides


def depends_on_credentials(status: int) -> bool:
    """Tell whether who has other credentials may get another answer than one of this status.

    It may always depend on rights, money, what there is for them, and how much they ask for. Some
    providers say 400 to all of that.
    """
    return _MOVED <= status < _SERVER_ERROR


def refuses_request(status: int) -> bool:
    """Tell whether a server refuses a request for what is in it."""
    return _BAD <= status < _SERVER_ERROR and status not in _OF_ACCOUNT


class RefusedError(Exception):
    """A server answered, but not with success; never leaves the library.

    Args:
        status: The HTTP status.
        received: What came with it.
        body: The whole body, decoded.
    """

    def __init__(self, status: int, received: Received, body: bytes) -> None:
        super().__init__(status, received, body)
        self.told_as: Final = f"HTTP {status}"
        """What events say of it, as its class is nobody's."""
        self.status: Final = status
        self.received: Final = received
        self.body: Final = body

    @property
    def is_of_request(self) -> bool:
        """Whether the server refused the request for what is in it."""
        return refuses_request(self.status)

    @property
    def depends_on_credentials(self) -> bool:
        """Whether who has other credentials may get another answer."""
        return depends_on_credentials(self.status)
