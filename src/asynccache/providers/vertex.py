"""Vertex AI: the models of Google and of others, each in the protocol of its publisher."""

from __future__ import annotations

from typing import Final

from asynccache.providers.anthropic import SHARED, MessageFacts, judge_message
from asynccache.providers.chat import ChatFacts, choices_of, judge_chat
from asynccache.providers.gemini import CONTENT, COUNT_TOKENS, EMBED, MARKERS, streams
from asynccache.providers.openai import CHAT
from asynccache.providers.provider import Provider, operation

_RAW: Final = "/models/(?P<model>[^/:]+):(?:r|streamR)awPredict"
_ANTHROPIC: Final = r"(?<=/publishers/anthropic)"

OPERATIONS: Final = (
    CONTENT,
    COUNT_TOKENS,
    EMBED,
    operation(
        "vertex-anthropic-tokens", _ANTHROPIC + "/models/count-tokens:rawPredict",
        "messages", "input_tokens", **SHARED,
    ),
    operation(
        "vertex-anthropic-messages", _ANTHROPIC + _RAW, "messages max_tokens", "stop_reason",
        facts=MessageFacts, judge=judge_message, **SHARED,
        streams=streams,
    ),
    operation(
        "vertex-chat", "(?<=/publishers/mistralai)" + _RAW, "messages", "choices",
        facts=ChatFacts, choices=choices_of, judge=judge_chat, streams=streams,
    ),
    operation(
        "vertex-embed", "/models/(?P<model>[^/:]*embedding[^/:]*):predict",
        "instances", "predictions",
    ),
    CHAT,
)  # fmt: skip
PROVIDER: Final = Provider(
    name="vertex",
    hosts=("aiplatform.googleapis.com", "-aiplatform.googleapis.com", ".rep.googleapis.com"),
    markers=MARKERS,
    operations=OPERATIONS,
)
