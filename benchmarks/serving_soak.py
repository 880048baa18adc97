"""An honest live client of `avsr serve` beside hostile ones: its words and their delay, and what the server spends.

    python benchmarks/serving_soak.py --seconds 20
    python benchmarks/serving_soak.py --only pings,text-ff+churn --seconds 12 --json soak.json

Starts a server of its own, and speaks to it in real time: the demo clip between pauses, with its pictures. Runs beside
hostile clients alternate with runs alone, because the load of the machine may change. Hostile clients are those of
`hostile_clients.py`, which says how they are kept from taking the processor. Each has its own address (127.0.0.2, ...).
--pairs adds runs beside two kinds at once: each kind and the next.

words: recognised rightly, of those said.
delay: from the end of a word, as its sound was recorded, to the message with the word: the median, and 95 %.
ratio: the median, divided by that of the runs alone before and after.
dropped: pictures, and seconds of sound.
hold: how long one client held the event loop at most so far, in ms, if the server says so.
sent: what the hostile clients sent, in MB.
stderr: how many lines the server wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hostile_clients import KINDS
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from avsr.shipped import ASSETS
from avsr.streaming.source import file_pictures, file_sound

CLIP, SAID = ASSETS / "demo.mp4", "place blue by r nine again".split()
TOKEN = "a-token-for-the-soak"
PAUSE_S = 1.0
BLOCK_SAMPLES = 320
HOSTILE = Path(__file__).with_name("hostile_clients.py")
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 10)]
BEFORE_S = 1.0
"""The honest client has its place before the hostile ones come."""
FREE_S = 40.0
"""How long the sessions of hostile clients may take to end."""


class Server:
    """A server in a process of its own."""

    def __init__(self, model: str) -> None:
        self._stderr = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-m", "avsr", "serve", "--model", model, "--port", "0", "--no-open", "--quiet"]
        self.process = subprocess.Popen(
            [*command, "--token", TOKEN], stdout=subprocess.PIPE, stderr=self._stderr, text=True
        )
        assert self.process.stdout is not None
        address = re.search(r":(\d+)/", self.process.stdout.readline())
        if address is None:
            raise SystemExit("serving_soak.py: the server did not start")
        self.port = int(address[1])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def get(self, path: str) -> str:
        """The answer to a request; empty if there is none."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
        return ""

    def wait_until_free(self) -> None:
        """Wait until all sessions have ended."""
        end_s = time.monotonic() + FREE_S
        while time.monotonic() < end_s:
            known = self.get("/info")
            if known and json.loads(known)["sessions"] == 0:
                return
            time.sleep(0.2)

    def stderr_lines(self) -> list[str]:
        self._stderr.seek(0)
        return self._stderr.read().splitlines()

    def rss_mib(self) -> float:
        """Memory now, in MiB; Linux only."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0

    def hold_ms(self) -> float | None:
        found = re.search(r"^avsr_loop_hold_max_seconds (\S+)", self.get("/metrics"), re.MULTILINE)
        return None if found is None else 1000 * float(found[1])


@dataclass
class Run:
    """What came of one run of the honest client."""

    beside: str
    words: int = 0
    expected: int = 0
    delay_ms: float = float("nan")
    p95_ms: float = float("nan")
    pictures_dropped: int = 0
    dropped_s: float = 0.0
    hold_ms: float | None = None
    rss_mib: float = 0.0
    sent_mb: float = 0.0
    stderr: list[str] = field(default_factory=list)
    closed: str = ""
    """The close of the honest session, if it is not the one that it asked for."""

    quiet_ms: float = float("nan")
    """The median delay alone, of the runs before and after."""

    @property
    def ratio(self) -> float:
        return self.delay_ms / self.quiet_ms

    def row(self) -> str:
        cells = [
            self.beside,
            f"{self.words}/{self.expected}",
            f"{self.delay_ms:.0f}",
            f"{self.p95_ms:.0f}",
            f"{self.ratio:.2f}",
            f"{self.pictures_dropped}, {self.dropped_s:.1f} s",
            "-" if self.hold_ms is None else f"{self.hold_ms:.0f}",
            f"{self.rss_mib:.0f}",
            f"{self.sent_mb:.1f}",
            f"{len(self.stderr)}",
            self.closed,
        ]
        return f"| {' | '.join(cells)} |"


HEAD = "| beside | words | delay, ms | p95 | ratio | dropped | hold, ms | RSS, MiB | sent, MB | stderr | closed |"


class Speech:
    """The messages of one sentence with its pauses, as (seconds, message without its time)."""

    def __init__(self) -> None:
        clip = np.concatenate([block.samples for block in file_sound(str(CLIP))])
        room = np.random.default_rng(1).normal(0, 1e-4, round(16000 * PAUSE_S)).astype(np.float32)
        samples = (32767 * np.concatenate([room, clip, room])).astype("<i2")
        self.seconds = len(samples) // BLOCK_SAMPLES * BLOCK_SAMPLES / 16000
        pictures = [(PAUSE_S + shown.time_s, jpeg(shown.rgb)) for shown in file_pictures(str(CLIP))]
        first, last = pictures[0][1], pictures[-1][1]
        still = [(time_s, first) for time_s in np.arange(0, PAUSE_S, 0.04)]
        after = [(time_s, last) for time_s in np.arange(pictures[-1][0] + 0.04, self.seconds, 0.04)]
        blocks = [
            ((start + BLOCK_SAMPLES) / 16000, 1, start / 16000, samples[start : start + BLOCK_SAMPLES].tobytes())
            for start in range(0, round(16000 * self.seconds), BLOCK_SAMPLES)
        ]
        shown = [(float(time_s), 3, float(time_s), data) for time_s, data in [*still, *pictures, *after]]
        self._messages = sorted(blocks + shown)

    def messages(self, times: int) -> Iterator[tuple[float, bytes]]:
        """When to send, and what."""
        for number, (due_s, kind, time_s, data) in itertools.product(range(times), self._messages):
            start_s = number * self.seconds
            yield start_s + due_s, struct.pack("<Bd", kind, start_s + time_s) + data


def jpeg(rgb: Any) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


async def speak(port: int, speech: Speech, times: int, run: Run) -> bool:
    """The honest session. Returns whether the server had a place."""
    async with connect(f"ws://127.0.0.1:{port}/stream", compression=None, max_size=None) as client:
        await client.send(json.dumps({"type": "hello", "protocol": 1, "token": TOKEN}))
        if json.loads(await client.recv()).get("code") == "busy":
            return False
        start_s = time.monotonic()
        reading = asyncio.create_task(read(client, start_s, run, times))
        with contextlib.suppress(ConnectionClosed):
            for due_s, message in speech.messages(times):
                await asyncio.sleep(max(0.0, start_s + due_s - time.monotonic()))
                await client.send(message)
            await client.send(json.dumps({"type": "stop"}))
        await reading
    if client.close_code != 1000:
        run.closed = f"{client.close_code} {client.close_reason}"
    return True


async def read(client: ClientConnection, start_s: float, run: Run, times: int) -> None:
    """Note words and delays until the close."""
    delays_ms: list[float] = []
    finals: list[list[str]] = []
    shown = 0
    with contextlib.suppress(ConnectionClosed):
        async for message in client:
            now_s = time.monotonic() - start_s
            event = json.loads(message)
            if event["event"] in ("partial", "final"):
                delays_ms += [1000 * (now_s - word["end"]) for word in event["words"][shown:]]
                shown = max(shown, len(event["words"]))
            if event["event"] == "final":
                finals.append(event["text"].split())
                shown = 0
            if event["event"] in ("status", "counters"):
                run.pictures_dropped = event["counters"]["pictures_dropped"]
                run.dropped_s = event["counters"]["samples_dropped"] / 16000
    right = [sum(a == b for a, b in zip(words, SAID, strict=False)) for words in finals]
    run.words, run.expected = sum(right), len(SAID) * times
    if delays_ms:
        run.delay_ms = statistics.median(delays_ms)
        run.p95_ms = float(np.percentile(delays_ms, 95))


async def beside(server: Server, speech: Speech, kinds: tuple[str, ...], seconds: float) -> Run:
    """One run of the honest client beside hostile ones of these kinds."""
    run = Run(" + ".join(kinds) or "nobody")
    times = max(1, round(seconds / speech.seconds))
    said = len(server.stderr_lines())
    while True:  # hostile clients before this run may have opened many sessions just now
        speaking = asyncio.create_task(speak(server.port, speech, times, run))
        await asyncio.sleep(BEFORE_S)
        if not speaking.done() or speaking.exception() or speaking.result():
            break
    options = ["--port", str(server.port), "--token", TOKEN, "--seconds", str(times * speech.seconds)]
    hostile = [
        await asyncio.create_subprocess_exec(
            sys.executable, str(HOSTILE), kind, *options, "--address", address, stdout=asyncio.subprocess.PIPE
        )
        for kind, address in zip(kinds, ADDRESSES, strict=False)
    ]
    try:
        await speaking
    except (OSError, ConnectionClosed) as error:
        run.closed = f"{type(error).__name__}: {error}"
    answers = [json.loads((await process.communicate())[0] or "{}") for process in hostile]
    run.sent_mb = sum(answer.get("sent", 0) for answer in answers) / 1e6
    await asyncio.to_thread(server.wait_until_free)
    run.hold_ms, run.rss_mib = server.hold_ms(), server.rss_mib()
    run.stderr = server.stderr_lines()[said:]
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run; default %(default)s")
    parser.add_argument(
        "--only",
        metavar="KINDS",
        help="kinds of hostile clients; default: all. A comma between runs, + between kinds at once",
    )
    parser.add_argument("--pairs", action="store_true", help="also two kinds at once")
    parser.add_argument("--model", default="grid-tiny")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    arguments = parser.parse_args()
    together = [tuple(part.split("+")) for part in (arguments.only or ",".join(KINDS)).split(",")]
    every = list(itertools.chain.from_iterable(together))
    if unknown := set(every) - set(KINDS):
        parser.error(f"--only: got {', '.join(sorted(unknown))}: expected {', '.join(KINDS)}")
    if arguments.pairs:
        together += list(zip(every, every[1:] + every[:1], strict=True))
    speech = Speech()
    server = Server(arguments.model)
    print(HEAD + "\n" + "|---" * HEAD.count(" | ") + "|---|")
    try:
        runs = [asyncio.run(beside(server, speech, (), arguments.seconds))]
        for some in together:
            runs += [asyncio.run(beside(server, speech, kinds, arguments.seconds)) for kinds in (some, ())]
            before, hostile, after = runs[-3:]
            hostile.quiet_ms = (before.delay_ms + after.delay_ms) / 2
            print(hostile.row(), flush=True)
            if server.process.poll() is not None:
                raise SystemExit(f"serving_soak.py: the server has ended with {server.process.returncode}")
    finally:
        server.stop()
    worst = max(runs[1::2], key=lambda run: run.ratio)
    print(f"largest ratio: {worst.ratio:.2f}, beside {worst.beside}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(run) for run in runs], indent=1))


if __name__ == "__main__":
    main()
