"""What `acreate` returns, as type checkers see it: the SDK's objects and what is noted on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai.types import Completion
from openai.types.chat import ChatCompletion

if TYPE_CHECKING:

    class NotedChatCompletion(ChatCompletion):
        """A chat completion that says which entry gave it, whether it is good, and its cost."""

        config_id: int
        pass_filter: bool
        cost: float

    class NotedCompletion(Completion):
        """A text completion that says the same."""

        config_id: int
        pass_filter: bool
        cost: float

else:  # of the SDK's own types, so that they equal what it builds
    NotedChatCompletion = ChatCompletion
    NotedCompletion = Completion
