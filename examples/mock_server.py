"""The HTTP server that the demo's swarm asks: llmock, in a process (and so a loop) of its own.

It speaks as OpenAI, Anthropic and Gemini do. Prints their addresses, serves until its standard
input is closed, then prints how many calls each got.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from llmock.chaos import ChaosSettings, StreamChaos
from llmock.simulation import MockResponseSettings
from llmock.testing import LLMockServer

PROVIDERS = ("OpenAI", "Anthropic", "Gemini")
LATENCY_MS = 400  # before an answer begins, as a fast model takes
EVENT_MS = 25  # between two events of a streamed answer
WAIT = 2.0  # seconds for calls that are being served when the count is asked for


def main() -> None:
    server = LLMockServer(
        chaos=ChaosSettings(latency_ms=LATENCY_MS),
        responses=MockResponseSettings(response_style="varied"),
    )
    server.state.stream_chaos = StreamChaos(chunk_delay_ms=EVENT_MS)
    with server:
        urls = {name: server.base_url(name.lower()) for name in PROVIDERS}
        print(json.dumps(urls), flush=True)
        sys.stdin.read()
        seen = Counter(record.provider for record in server.state.journal.records(wait=WAIT))
        print(json.dumps({name: seen[name.lower()] for name in PROVIDERS}), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
