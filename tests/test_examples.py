"""The examples do what they say. They run in this process, so that torch is loaded once."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.fake_live import FakeRecognizer
from tests.test_serving import TOKEN, port_of, running

FOLDER = Path(__file__).resolve().parents[1] / "examples"
SENTENCE = "place blue by r nine again"
TESTED_ELSEWHERE = {"pocketsphinx_recognizer"}


def load(name: str) -> ModuleType:
    """An example as a module, without running it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_each_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    docstring = load(path.stem).__doc__ or ""
    assert path.name in docstring
    assert len(source.splitlines()) <= 80
    assert path.stem in TESTED_ELSEWHERE or f'load("{path.stem}")' in Path(__file__).read_text(encoding="utf-8")


@pytest.mark.slow
def test_transcribe_file(capsys: pytest.CaptureFixture[str]) -> None:
    load("transcribe_file").main()
    out, err = capsys.readouterr()
    assert SENTENCE in out.splitlines()[0]
    assert [line.split()[0] for line in out.splitlines()[1:]] == SENTENCE.split()
    assert (
        err == "warning: model grid-tiny knows only the 51 words of GRID: other speech gives no words, or wrong ones\n"
    )


@pytest.mark.slow
def test_transcribe_array(capsys: pytest.CaptureFixture[str]) -> None:
    load("transcribe_array").main()
    samples, file = capsys.readouterr().out.splitlines()
    assert samples == f"3.5 s of samples: {SENTENCE}"
    assert file == f"bytes of a file, from av: {SENTENCE}"


@pytest.mark.slow
def test_live_file(capsys: pytest.CaptureFixture[str]) -> None:
    example = load("live_file")
    asyncio.run(example.main(str(example.DEMO), False))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("recognised from av (ok)")
    assert lines[1].endswith("... place")
    assert lines[-1].endswith(f" s  {SENTENCE}")


@pytest.mark.slow
def test_own_lip_crops(capsys: pytest.CaptureFixture[str]) -> None:
    load("own_lip_crops").main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "log-probabilities: 44 frames of 52 units"
    assert any(line.endswith(f"final: {SENTENCE}") for line in lines)
    assert "'used': 88" in lines[-1]


def test_other_recogniser(capsys: pytest.CaptureFixture[str]) -> None:
    load("other_recogniser").main()
    out, err = capsys.readouterr()
    assert out == "  0.90 -   2.60 s  speech\n"
    assert err == 'model loud knows only the word "speech": other speech comes out as these\n'


def test_websocket_client(capsys: pytest.CaptureFixture[str]) -> None:
    with running(FakeRecognizer(domain="the words of a test")) as served:
        asyncio.run(load("websocket_client").main(url=f"ws://127.0.0.1:{port_of(served)}/stream"))
    out, err = capsys.readouterr()
    assert out == "  0.00 s  word0 word1 word2\n"
    assert err == "model fake knows only the words of a test: other speech comes out as these\n"


def test_websocket_client_reads_while_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that the server sends after ten blocks are printed long before the last block is sent."""
    blocks = 0
    printed: list[tuple[int, str]] = []
    example = load("websocket_client")
    monkeypatch.setattr(example, "print", lambda line, file=None: printed.append((blocks, line)), raising=False)

    async def answer(client: ServerConnection) -> None:
        nonlocal blocks
        assert json.loads(await client.recv()) == {"type": "hello", "protocol": 1, "token": "", "video": False}
        async for message in client:
            if isinstance(message, str):
                assert json.loads(message) == {"type": "stop"}
                return
            blocks += 1
            if blocks == 10:
                await client.send(json.dumps({"event": "final", "start": 0.0, "text": "early"}))

    async def run() -> None:
        async with serve(answer, "127.0.0.1", 0) as server:
            await example.main(url=f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/stream")

    asyncio.run(run())
    assert blocks > 170
    ((blocks_before, line),) = printed
    assert line == "  0.00 s  early" and blocks_before < 100


def run_client(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "websocket_client.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_websocket_client_sends_the_token(capsys: pytest.CaptureFixture[str]) -> None:
    example = load("websocket_client")
    with running(FakeRecognizer(), token=TOKEN) as served:
        address = f"http://127.0.0.1:{port_of(served)}/"
        assert asyncio.run(example.main(url=f"{address}?token={TOKEN}")) == ""
        assert asyncio.run(example.main(url=address, token=TOKEN)) == ""
        assert asyncio.run(example.main(example.DEMO + ".none", address, TOKEN)).startswith(f"{example.DEMO}.none: no")
        assert capsys.readouterr().out == 2 * "  0.00 s  word0 word1 word2\n"
        done = run_client(example.DEMO, address, "a-token-that-is-wrong")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("the token is wrong") and done.stderr.count("\n") == 1


def test_websocket_client_says_that_the_server_was_stopped() -> None:
    example = load("websocket_client")
    with running(FakeRecognizer()) as served:

        async def run() -> str:
            client = asyncio.create_task(example.main(url=f"http://127.0.0.1:{port_of(served)}/"))
            await asyncio.sleep(1.0)
            served.server.should_exit = True
            why: str = await client
            return why

        assert asyncio.run(run()).startswith("the server closed the connection: received 1012")


def test_websocket_client_without_a_server() -> None:
    done = run_client("any.mp4", "http://127.0.0.1:1/")
    assert done.returncode == 1
    assert done.stderr.startswith("no server at ws://127.0.0.1:1/stream: start it with avsr serve")
    assert done.stderr.count("\n") == 1
