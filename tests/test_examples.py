"""The examples do what they say. They run in this process, so that torch is loaded once."""

from __future__ import annotations

import asyncio
import importlib.util
import json
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
    assert len(source.splitlines()) <= 70
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
        assert json.loads(await client.recv()) == {"type": "hello", "protocol": 1, "video": False}
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


def test_websocket_client_says_why_it_was_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with running(token=TOKEN) as served:
        asyncio.run(load("websocket_client").main(url=f"ws://127.0.0.1:{port_of(served)}/stream"))
    out, err = capsys.readouterr()
    assert out == "" and "the token is wrong" in err
