"""A thousand agents ask a model, and each question is paid for once: run it twice.

Every agent holds a conversation of several turns about one of a few topics, and sends the
conversation so far with each turn, as agents do. Some calls are streamed, some are given up midway
and made again. The answers come from a mock server started for the occasion, or with ``--live``
from the real API; the cache lies in ``./.cache``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Self

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError
from openai.types.chat import ChatCompletionMessageParam
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import asynccache
from asynccache import AsyncCache, Cache, Stats, StoreError

TURNS = (
    "What is the first thing to know about {}?",
    "Name the most common mistake with {}.",
    "How would you test that, in two sentences?",
    "Sum up this conversation in one line.",
)
TOPICS = (
    "caching", "queues", "timeouts", "retries", "backpressure", "idempotency", "clocks", "locks",
    "leases", "consensus", "replication", "sharding", "indexing", "compression", "checksums",
    "encryption", "logging", "tracing", "metrics", "alerts", "deployments", "rollbacks",
    "migrations", "schemas", "pagination", "streaming", "batching", "sampling", "embeddings",
    "evaluation",
)  # fmt: skip
SYSTEM = (
    "You belong to a team of engineers who answer each other's questions. Answer in plain words,"
    " state what you assume, name one source, and never pad. "
) * 8  # instructions of a usual length: they are sent with every turn
STREAMED = 0.4  # share of the questions that are asked as streams
GIVING_UP = 0.1  # share of the turns in which an agent loses patience
ARRIVALS = 350  # agents per second
HEARTBEAT = 0.01  # seconds
MOCK_UPSTREAM = "demo-mock"  # the mock server's name in keys, as its port changes from run to run
OUT = Console(highlight=False)


class Tally:
    """What the agents saw."""

    def __init__(self) -> None:
        self.asked = self.given_up = self.streamed = 0
        self.answered: Counter[str] = Counter()  # by where the answer came from
        self.transcripts: dict[str, set[tuple[str, ...]]] = {}
        self.pending: dict[tuple[str, int], int] = {}
        """Callers who wait for an answer now and don't leave, by question."""


class Agent:
    """One conversation about one topic."""

    def __init__(
        self, number: int, topic: str, client: AsyncOpenAI, model: str, tally: Tally
    ) -> None:
        self.topic = topic
        self.chance = random.Random(number)  # the same in every run
        self.client = client
        self.model = model
        self.tally = tally
        self.messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": SYSTEM}]

    async def run(self, arrival: float) -> None:
        await asyncio.sleep(self.chance.random() * arrival)
        answers: list[str] = []
        for turn, question in enumerate(TURNS):
            self.messages.append({"role": "user", "content": question.format(self.topic)})
            answer = await self.impatient(turn) if self.chance.random() < GIVING_UP else None
            if answer is None:
                answer = await self.ask(turn)
            answers.append(answer)
            self.messages.append({"role": "assistant", "content": answer})
        self.tally.transcripts.setdefault(self.topic, set()).add(tuple(answers))

    async def impatient(self, turn: int) -> str | None:
        """Ask, and give up as soon as somebody else waits for the same answer; None if given up."""
        patience = 0.02 + self.chance.random() * 0.4
        asking = asyncio.create_task(self.ask(turn))
        try:
            await asyncio.wait([asking], timeout=patience)
            # Alone, it waits on: if the only caller left, its call would end and be made again.
            while not asking.done() and self.tally.pending[self.topic, turn] < 2:
                await asyncio.wait([asking], timeout=HEARTBEAT)
            if asking.done():
                return asking.result()
            self.tally.pending[self.topic, turn] -= 1
            self.tally.given_up += 1
            return None
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    async def ask(self, turn: int) -> str:
        tally, key = self.tally, (self.topic, turn)
        tally.asked += 1
        tally.pending[key] = tally.pending.get(key, 0) + 1
        streamed = random.Random(f"{key}").random() < STREAMED
        came_from, answer = await (self.read_stream() if streamed else self.read_whole())
        tally.pending[key] -= 1
        tally.answered[came_from] += 1
        tally.streamed += streamed
        return answer

    async def read_whole(self) -> tuple[str, str]:
        response = await self.client.chat.completions.create(
            model=self.model, messages=self.messages, max_completion_tokens=200
        )
        return origin(response), response.choices[0].message.content or ""

    async def read_stream(self) -> tuple[str, str]:
        stream = await self.client.chat.completions.create(
            model=self.model,
            messages=self.messages,
            max_completion_tokens=200,
            stream=True,
            stream_options={"include_usage": True},  # else no one knows what it cost
        )
        async with stream:
            pieces = [event.choices[0].delta.content async for event in stream if event.choices]
        return origin(stream), "".join(piece or "" for piece in pieces)


def origin(response: object) -> str:
    """Return how a response was come by: "hit", "joined" or "miss"."""
    status = asynccache.status(response)
    return "bypass" if status is None else status.outcome


class Server:
    """The mock server's process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mock_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("the mock server did not start; what it says stands above")

    def stop(self) -> int:
        """Stop it and return how many calls reached it."""
        out, _ = self.process.communicate(timeout=30)
        return int(out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


class Heartbeat:
    """Measures how late the event loop wakes a sleeper, which is how long something held it."""

    def __init__(self) -> None:
        self.lags: list[float] = []

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + HEARTBEAT
            await asyncio.sleep(HEARTBEAT)
            self.lags.append(max(0.0, time.perf_counter() - due) * 1000)

    @property
    def figures(self) -> tuple[str, str]:
        """The longest lag, and in words what is usual."""
        lags = sorted(self.lags) or [0.0]
        usual = lags[int(len(lags) * 0.99)]
        return (
            f"{lags[-1]:.0f} ms",
            f"late at most, 99 % below {usual:.0f} ms (the SDK's work included)",
        )


async def swarm(
    args: argparse.Namespace, cache: AsyncCache, url: str | None
) -> tuple[Tally, Heartbeat]:
    """Let all agents loose at once; return what they saw, and how free the loop was."""
    # The mock server is near: no proxy may stand before it.
    http = None if url is None else DefaultAsyncHttpxClient(trust_env=False)
    async with AsyncOpenAI(
        base_url=url, api_key=None if url is None else "mock", http_client=http
    ) as bare:
        client = cache.wrap(bare, upstream=None if url is None else MOCK_UPSTREAM)
        tally, heartbeat = Tally(), Heartbeat()
        agents = [
            Agent(number, TOPICS[number % len(TOPICS)], client, args.model, tally)
            for number in range(args.agents)
        ]
        beside = [
            asyncio.create_task(heartbeat.run()),
            asyncio.create_task(show(args, cache, tally)),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for agent in agents:
                    group.create_task(agent.run(args.agents / ARRIVALS))
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
    return tally, heartbeat


async def show(args: argparse.Namespace, cache: AsyncCache, tally: Tally) -> None:
    """Keep a line of progress on the terminal, where there is one."""
    columns = (
        TextColumn("answered"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    total = args.agents * len(TURNS)
    with Progress(*columns, console=OUT, disable=not OUT.is_terminal, refresh_per_second=5) as bar:
        line = bar.add_task("", total=total)
        try:
            while True:
                await asyncio.sleep(0.2)
                seen = cache.stats()
                bar.update(
                    line,
                    completed=tally.answered.total(),
                    description=f"paid {seen.upstream_calls}  joined {seen.joined}"
                    f"  hits {seen.hits}  given up {tally.given_up}",
                )
        finally:
            bar.update(line, completed=tally.answered.total())


def summary(
    args: argparse.Namespace, tally: Tally, stats: Stats, elapsed: float, heartbeat: Heartbeat
) -> None:
    """Print what happened, in words."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column()
    answered = tally.answered
    paid, saved = (
        tokens / 1_000_000 * args.price for tokens in (stats.tokens_paid, stats.tokens_saved)
    )
    price = f"an assumed {args.price:g} $ a million"
    arriving = f"{args.agents / ARRIVALS:.1f} s"
    for row in (
        ("asked", f"{tally.asked:,}", f"calls by {args.agents:,} agents, {len(TURNS)} turns each"),
        ("given up", f"{tally.given_up:,}", "cancelled midway, and asked again"),
        ("answered", f"{answered.total():,}", f"{tally.streamed:,} of them event by event"),
        ("  hits", f"{answered['hit']:,}", "found stored"),
        ("  joined", f"{answered['joined']:,}", "waited for a call that another agent had begun"),
        ("  own", f"{answered['miss']:,}", "by a call of their own"),
        ("paid", f"{stats.upstream_calls:,}", "calls upstream"),
        ("tokens", f"{stats.tokens_paid:,}", f"paid, and {stats.tokens_saved:,} saved"),
        ("money", f"{paid:,.2f} $", f"paid, and {saved:,.2f} $ saved, at {price}"),
        ("time", f"{stats.seconds_paid:,.0f} s", f"paid, and {stats.seconds_saved:,.0f} s saved"),
        ("elapsed", f"{elapsed:.1f} s", f"of which the agents take {arriving} to arrive"),
        ("heartbeat", *heartbeat.figures),
    ):  # fmt: skip
        table.add_row(*row)
    OUT.print()
    OUT.print(table)
    OUT.print()


def verdict(tally: Tally, stats: Stats, served: int | None) -> list[str]:
    """Return what is wrong with the figures: nothing, it is hoped."""
    wrong = []
    torn = [topic for topic, transcripts in tally.transcripts.items() if len(transcripts) > 1]
    if torn:
        wrong.append(f"agents got different answers to the same questions about {', '.join(torn)}")
    # A call that all its callers have left is ended: the server may or may not have heard of it.
    if served is not None and not 0 <= stats.upstream_calls - served <= stats.abandoned:
        wrong.append(f"{stats.upstream_calls} calls were paid, and the server counted {served}")
    if stats.bypassed:
        wrong.append(f"{stats.bypassed} calls went past the cache")
    return wrong


async def run(args: argparse.Namespace) -> int:
    """Show it all; return the exit code."""
    cache = Cache.disk(cache_path_root=args.cache)
    async with cache:
        server = None if args.live else Server()
        with server or nullcontext():
            whom = "the real API" if server is None else f"a mock server at {server.url}"
            OUT.print(f"{args.agents:,} agents ask {whom}", soft_wrap=True)
            OUT.print(f"through a cache in {args.cache}", soft_wrap=True)
            began = time.perf_counter()
            tally, heartbeat = await swarm(args, cache, None if server is None else server.url)
            elapsed = time.perf_counter() - began
            served = None if server is None else server.stop()
    stats = cache.stats()
    summary(args, tally, stats, elapsed, heartbeat)
    wrong = verdict(tally, stats, served)
    for sentence in wrong:
        OUT.print(f"[bold red]Wrong:[/] {sentence}")
    if not wrong:
        if served is not None:
            OUT.print(f"The server counted {served:,} calls, as the cache did.")
        OUT.print("All agents got the same answers to the same questions.")
    if stats.upstream_calls:
        OUT.print("Run it again: nothing will be paid.")
    else:
        OUT.print(
            f"[bold]Nothing was paid:[/] every answer came from {args.cache}.", soft_wrap=True
        )
        OUT.print("Remove that folder to start over.")
    return 1 if wrong else 0


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and refuse what can't work before anything starts."""
    parser = argparse.ArgumentParser(description="A swarm of agents on one cache.")
    parser.add_argument("--agents", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--cache", default=".cache", help="folder of the cache (default: .cache)")
    parser.add_argument(
        "--live", action="store_true", help="ask the real API; needs OPENAI_API_KEY"
    )
    parser.add_argument("--model", default="gpt-4o-mini", help="default: gpt-4o-mini")
    parser.add_argument(
        "--price", type=float, default=1.0, help="assumed, in dollars a million tokens (default: 1)"
    )
    args = parser.parse_args(argv)
    if args.agents < 1:
        parser.error(f"--agents must be at least 1, not {args.agents}")
    if not 0 <= args.price < float("inf"):
        parser.error(f"--price must be a price, not {args.price}")
    if args.live and not os.environ.get("OPENAI_API_KEY"):
        parser.error("--live asks the real API: set OPENAI_API_KEY first")
    return args


def main() -> int:
    args = arguments()
    # A full collection looks at all that was imported too, and holds the loop for 0.1 s.
    gc.collect()
    gc.freeze()
    try:
        return asyncio.run(run(args))
    except* (StoreError, OpenAIError, OSError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"The demo stopped: {type(error).__name__}: {error}", file=sys.stderr)
    except* KeyboardInterrupt:
        print("Stopped. What was answered is kept; run it again.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
