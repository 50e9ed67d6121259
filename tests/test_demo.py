"""The demo, small, as people start it: a process of its own in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent / "examples" / "swarm.py"
AGENTS = 60
QUESTIONS = 120  # 30 topics of 4 turns, all of them asked as soon as there are 30 agents
ANSWERS = AGENTS * 4
PROVIDERS = ("OpenAI", "Anthropic", "Gemini")
KEYS = ("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")


def run_demo(folder, *arguments):
    """Run the demo in a folder, where no key is set and the proxy leads nowhere."""
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith(KEYS)}
    environment["HTTP_PROXY"] = environment["http_proxy"] = "http://127.0.0.1:9"
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def figures(output):
    """Return the table's figures by name and column: "all", or a provider."""
    columns = ("all", *PROVIDERS)
    assert re.search(r"^ +" + " +".join(columns) + r" *$", output, re.MULTILINE)
    figure = r" +([\d,.]+)(?: s| \$)?"
    rows = re.findall(r"^ *([a-z ]+?) " + figure * len(columns), output, re.MULTILINE)
    return {
        name: dict(zip(columns, (float(one.replace(",", "")) for one in row), strict=True))
        for name, *row in rows
    }


def test_the_second_run_pays_nothing(tmp_path):
    """Each provider's question is paid for once, as the server counts too, and never again."""
    first = run_demo(tmp_path, "--agents", str(AGENTS))
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stderr == ""
    seen = figures(first.stdout)
    share = {"all": QUESTIONS, **dict.fromkeys(PROVIDERS, QUESTIONS / len(PROVIDERS))}
    assert seen["paid"] == share
    assert f"The server counted {QUESTIONS} calls" in first.stdout
    assert seen["given up"]["all"] > 0
    for column, paid in share.items():
        answers = ANSWERS * paid / QUESTIONS
        one = {name: row[column] for name, row in seen.items()}
        assert one["asked"] == answers + one["given up"]
        assert one["answered"] == one["hits"] + one["joined"] + one["own"] == answers
        assert one["tokens paid"] > 0
        assert one["tokens saved"] > 0
    for row in ("asked", "joined", "paid", "tokens paid", "tokens saved"):
        assert seen[row]["all"] == sum(seen[row][name] for name in PROVIDERS)
    assert "Run it again" in first.stdout

    second = run_demo(tmp_path, "--agents", str(AGENTS))
    assert second.returncode == 0, second.stdout + second.stderr
    seen = figures(second.stdout)
    assert not any(
        seen[row][column] for row in ("paid", "tokens paid", "given up") for column in share
    )
    assert seen["hits"] == seen["answered"]
    assert seen["answered"]["all"] == ANSWERS
    assert "The server counted 0 calls" in second.stdout
    assert "Nothing was paid" in second.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--live"], "set OPENAI_API_KEY"),
        (["--agents", "0"], "--agents must be at least 1"),
        (["--price", "nan"], "--price must be a price"),
    ],
)
def test_what_cannot_work_is_refused_first(tmp_path, arguments, message):
    """Bad arguments end the demo with one sentence before anything is started or made."""
    ended = run_demo(tmp_path, *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    os.name != "posix", reason="what others may do to a folder is looked at on POSIX alone"
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    """A cache folder that others may write to ends the demo with the store's own sentence."""
    folder = tmp_path / ".cache"
    folder.mkdir()
    folder.chmod(0o777)
    ended = run_demo(tmp_path, "--agents", "1")
    assert ended.returncode == 1
    assert "Others may write to" in ended.stderr
    assert "Traceback" not in ended.stderr
