"""A thousand agents ask three providers, and each question is paid for once: run it twice.

A third of the agents speaks with OpenAI, a third with Anthropic, a third with Gemini, each by the
provider's own SDK, all through one cache. Every agent holds a conversation of several turns about
one of a few topics, and sends the conversation so far with each turn, as agents do. Some calls are
streamed, some are given up midway and made again. The answers come from a mock server started for
the occasion, or with ``--live`` from the real APIs; the cache lies in ``./.cache``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sdks import PROVIDERS, SDK_ERRORS, Provider

import asynccache
from asynccache import AsyncCache, Cache, CallEvent, Stats, StoreError

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
STREAMED = 0.4  # share of the questions that are asked as streams
GIVING_UP = 0.1  # share of the turns in which an agent loses patience
ARRIVALS = 250  # agents per second
HEARTBEAT = 0.01  # seconds
OUT = Console(highlight=False)


class Tally:
    """What the agents of one provider saw, or all of them together."""

    def __init__(self) -> None:
        self.asked = self.given_up = self.streamed = 0
        self.answered: Counter[str] = Counter()  # by where the answer came from
        self.paid: dict[str, CallEvent] = {}
        """Calls upstream that brought somebody an answer, by key."""
        self.tokens_saved = 0
        self.seconds_saved = 0.0
        self.transcripts: dict[str, set[tuple[str, ...]]] = {}
        self.pending: dict[tuple[str, int], int] = {}
        """Callers who wait for an answer now and don't leave, by question."""

    def note(self, call: CallEvent, *, streamed: bool) -> None:
        """Count an answer."""
        self.answered[call.outcome] += 1
        self.streamed += streamed
        if call.outcome in {"miss", "joined"}:
            self.paid[call.key] = call
        if call.outcome in {"hit", "joined"}:
            self.tokens_saved += call.tokens
            self.seconds_saved += call.seconds

    @property
    def tokens_paid(self) -> int:
        return sum(call.tokens for call in self.paid.values())

    @property
    def seconds_paid(self) -> float:
        return sum(call.seconds for call in self.paid.values())

    @classmethod
    def of_all(cls, tallies: list[Tally]) -> Tally:
        """Return the figures of several together."""
        total = cls()
        for tally in tallies:
            total.asked += tally.asked
            total.given_up += tally.given_up
            total.streamed += tally.streamed
            total.answered += tally.answered
            total.paid |= tally.paid
            total.tokens_saved += tally.tokens_saved
            total.seconds_saved += tally.seconds_saved
        return total


class Agent:
    """One conversation about one topic."""

    def __init__(self, number: int, topic: str, provider: Provider, tally: Tally) -> None:
        self.topic = topic
        self.chance = random.Random(number)  # the same in every run
        self.provider = provider
        self.tally = tally
        self.said: list[str] = []

    async def run(self, arrival: float) -> None:
        await asyncio.sleep(self.chance.random() * arrival)
        for turn, question in enumerate(TURNS):
            self.said.append(question.format(self.topic))
            answer = await self.impatient(turn) if self.chance.random() < GIVING_UP else None
            self.said.append(await self.ask(turn) if answer is None else answer)
        self.tally.transcripts.setdefault(self.topic, set()).add(tuple(self.said))

    async def impatient(self, turn: int) -> str | None:
        """Ask, and give up as soon as somebody else waits for the same answer; None if given up."""
        # Counted in turns that came in time, so that nobody gives up as the machine is busy.
        patience = 10 + int(self.chance.random() * 30)
        asking = asyncio.create_task(self.ask(turn))
        try:
            # Alone, it waits on: if the only caller left, its call would end and be made again.
            while not asking.done() and (patience > 0 or self.tally.pending[self.topic, turn] < 2):
                began = time.perf_counter()
                await asyncio.wait([asking], timeout=HEARTBEAT)
                patience -= time.perf_counter() - began < 2 * HEARTBEAT
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
        with asynccache.record() as calls:
            ask = self.provider.streamed if streamed else self.provider.whole
            answer = await ask(self.said)
        tally.pending[key] -= 1
        tally.note(calls[-1], streamed=streamed)
        return answer


class Server:
    """The mock server's process, which speaks as each provider does."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mock_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        said = self.process.stdout.readline()
        if not said:
            raise RuntimeError("the mock server did not start; what it says stands above")
        self.urls: dict[str, str] = json.loads(said)

    def stop(self) -> dict[str, int]:
        """Stop it and return how many calls reached it, by provider."""
        out, _ = self.process.communicate(timeout=30)
        counted: dict[str, int] = json.loads(out)
        return counted

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
    def said(self) -> str:
        """The longest lag, and what is usual, in words."""
        lags = sorted(self.lags) or [0.0]
        usual = lags[int(len(lags) * 0.99)]
        return (
            f"The event loop woke a sleeper {lags[-1]:.0f} ms late at most, 99 % below"
            f" {usual:.0f} ms (the SDKs' work included)."
        )


async def swarm(
    args: argparse.Namespace, cache: AsyncCache, urls: dict[str, str | None]
) -> tuple[dict[str, Tally], Heartbeat]:
    """Let all agents loose at once; return what they saw, and how free the loop was.

    Args:
        args: The command line's.
        cache: Is asked by all.
        urls: Of the providers that are asked, None for the real ones.
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    heartbeat = Heartbeat()
    async with AsyncExitStack() as stack:
        providers = []
        for name, url in urls.items():
            provider = PROVIDERS[name][0](cache, url)
            stack.push_async_callback(provider.close)
            providers.append((provider, tallies[name]))
        agents = [
            Agent(number, TOPICS[number % len(TOPICS)], *providers[number % len(providers)])
            for number in range(args.agents)
        ]
        beside = [
            asyncio.create_task(heartbeat.run()),
            asyncio.create_task(show(args, cache, tallies)),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for agent in agents:
                    group.create_task(agent.run(args.agents / ARRIVALS))
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
    return dict(tallies), heartbeat


async def show(args: argparse.Namespace, cache: AsyncCache, tallies: dict[str, Tally]) -> None:
    """Keep a line of progress on the terminal, where there is one."""
    columns = (
        TextColumn("answered"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    total = args.agents * len(TURNS)
    with Progress(*columns, console=OUT, disable=not OUT.is_terminal, refresh_per_second=5) as bar:
        line = bar.add_task("", total=total)

        def update() -> None:
            seen, tally = cache.stats(), Tally.of_all([*tallies.values()])
            bar.update(
                line,
                completed=tally.answered.total(),
                description=f"paid {seen.upstream_calls}  joined {seen.joined}  hits {seen.hits}"
                f"  given up {tally.given_up}",
            )

        try:
            while True:
                await asyncio.sleep(0.2)
                update()
        finally:
            update()


def summary(
    args: argparse.Namespace, tallies: dict[str, Tally], elapsed: float, heartbeat: Heartbeat
) -> None:
    """Print what happened, in words."""
    total = Tally.of_all([*tallies.values()])
    table = Table(box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    for name in ("all", *tallies):
        table.add_column(name, justify="right", no_wrap=True, style="bold" if name == "all" else "")
    table.add_column()

    def dollars(tokens: int) -> str:
        return f"{tokens / 1_000_000 * args.price:,.2f} $"

    rows: tuple[tuple[str, Callable[[Tally], str], str], ...] = (
        ("asked", lambda t: f"{t.asked:,}", f"calls by {args.agents:,} agents"),
        ("given up", lambda t: f"{t.given_up:,}", "midway, and asked again"),
        ("answered", lambda t: f"{t.answered.total():,}", f"of them {total.streamed:,} as streams"),
        ("  hits", lambda t: f"{t.answered['hit']:,}", "found stored"),
        ("  joined", lambda t: f"{t.answered['joined']:,}", "shared somebody's call"),
        ("  own", lambda t: f"{t.answered['miss']:,}", "by a call of their own"),
        ("paid", lambda t: f"{len(t.paid):,}", "calls upstream"),
        ("tokens paid", lambda t: f"{t.tokens_paid:,}", "sent and received"),
        ("tokens saved", lambda t: f"{t.tokens_saved:,}", "by hits and joined calls"),
        ("money paid", lambda t: dollars(t.tokens_paid), f"at {args.price:g} $ a million tokens"),
        ("money saved", lambda t: dollars(t.tokens_saved), "which is an assumed price"),
        ("time paid", lambda t: f"{t.seconds_paid:,.0f} s", "spent by the models"),
        ("time saved", lambda t: f"{t.seconds_saved:,.0f} s", "that they would have spent"),
    )
    for name, figure, words in rows:
        table.add_row(name, *(figure(tally) for tally in (total, *tallies.values())), words)
    OUT.print()
    OUT.print(table)
    OUT.print()
    arriving = f"{args.agents / ARRIVALS:.1f} s"
    OUT.print(f"It took {elapsed:.1f} s, of which the agents take {arriving} to arrive.")
    OUT.print(heartbeat.said, soft_wrap=True)


def verdict(tallies: dict[str, Tally], stats: Stats, served: dict[str, int] | None) -> list[str]:
    """Return what is wrong with the figures: nothing, it is hoped."""
    wrong = []
    for name, tally in tallies.items():
        torn = [topic for topic, said in tally.transcripts.items() if len(said) > 1]
        if torn:
            wrong.append(f"agents of {name} got different answers about {', '.join(torn)}")
        paid, seen = len(tally.paid), 0 if served is None else served.get(name, 0)
        # A call that all its callers have left is ended: the server may have heard of it.
        if served is not None and not 0 <= seen - paid <= stats.abandoned:
            wrong.append(f"{name}: {paid} calls were paid, and the server counted {seen}")
    if stats.bypassed:
        wrong.append(f"{stats.bypassed} calls went past the cache")
    return wrong


async def run(args: argparse.Namespace) -> int:
    """Show it all; return the exit code."""
    cache = Cache.disk(cache_path_root=args.cache)
    async with cache:
        server = None if args.live else Server()
        with server or nullcontext():
            urls: dict[str, str | None] = (
                dict.fromkeys(with_keys()) if server is None else {**server.urls}
            )
            OUT.print(f"{args.agents:,} agents ask {', '.join(urls)}", soft_wrap=True)
            OUT.print("at the real APIs" if server is None else "at a mock server of our own")
            OUT.print(f"through one cache in {args.cache}", soft_wrap=True)
            began = time.perf_counter()
            tallies, heartbeat = await swarm(args, cache, urls)
            elapsed = time.perf_counter() - began
            served = None if server is None else server.stop()
    stats = cache.stats()
    summary(args, tallies, elapsed, heartbeat)
    wrong = verdict(tallies, stats, served)
    for sentence in wrong:
        OUT.print(f"[bold red]Wrong:[/] {sentence}")
    if not wrong:
        if served is not None:
            OUT.print(f"The server counted {sum(served.values()):,} calls, as the cache did.")
        OUT.print("All agents got the same answers to the same questions.")
    if stats.upstream_calls:
        OUT.print("Run it again: nothing will be paid.")
    else:
        OUT.print(
            f"[bold]Nothing was paid:[/] every answer came from {args.cache}.", soft_wrap=True
        )
        OUT.print("Remove that folder to start over.")
    return 1 if wrong else 0


def with_keys() -> list[str]:
    """Return the providers whose key is in the environment."""
    return [name for name, (_, key) in PROVIDERS.items() if os.environ.get(key)]


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and refuse what can't work before anything starts."""
    parser = argparse.ArgumentParser(description="A swarm of agents on one cache.")
    keys = ", ".join(key for _, key in PROVIDERS.values())
    parser.add_argument("--agents", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--cache", default=".cache", help="folder of the cache (default: .cache)")
    parser.add_argument(
        "--live", action="store_true", help=f"ask the real APIs whose key is set: {keys}"
    )
    parser.add_argument(
        "--price", type=float, default=1.0, help="assumed, in dollars a million tokens (default: 1)"
    )
    args = parser.parse_args(argv)
    if args.agents < 1:
        parser.error(f"--agents must be at least 1, not {args.agents}")
    if not 0 <= args.price < float("inf"):
        parser.error(f"--price must be a price, not {args.price}")
    if args.live and not with_keys():
        parser.error(f"--live asks the real APIs: set OPENAI_API_KEY or another of {keys} first")
    return args


def main() -> int:
    args = arguments()
    # A full collection looks at all that was imported too, and holds the loop for 0.1 s.
    gc.collect()
    gc.freeze()
    try:
        return asyncio.run(run(args))
    except* (StoreError, OSError, *SDK_ERRORS) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"The demo stopped: {type(error).__name__}: {error}", file=sys.stderr)
    except* KeyboardInterrupt:
        print("Stopped. What was answered is kept; run it again.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
