"""`avsr stream`: what goes where, when, and how it ends."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest

import avsr
from avsr.cli.main import main
from tests import fake_stream
from tests.fake_devices import FakeCapture, FakeInput
from tests.tiny import live_config, own_recognizer, random_network, random_samples, tiny_network, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[1]
DEMO = str(ROOT / "avsr/assets/demo.mp4")
pytestmark = pytest.mark.usefixtures("grid_tiny")

FATES = ("used", "late", "absent", "duplicate")


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avsr, "load", fake_stream.load)


@pytest.fixture
def sound(tmp_path: Path) -> str:
    """Three seconds of sound without a picture."""
    path = tmp_path / "talk.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((random_samples(3.0, seed=3) * 20_000).astype(np.int16).tobytes())
    return str(path)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def stream_process(*words: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fake_stream", "stream", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes them, and so all they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class TestJson:
    def test_each_event_is_a_line_and_the_last_has_the_counters(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stream", DEMO, "--chunk-ms", "160"]) == 0
        out, err = capsys.readouterr()
        events = lines(out)
        assert err == ""
        assert {event["event"] for event in events} == {"mode", "partial", "final", "counters"}
        for event in events:
            assert {"event", "text", "start", "end", "emitted"} <= event.keys()
            assert event["event"] == "counters" or "reason" in event
        counters = events[-1]["counters"]
        assert counters["pictures"] == 88 == sum(counters[fate] for fate in FATES)

    def test_it_is_the_same_every_time_with_faults_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = (
            "--drop-video 1:1.5 --drop-video 2:2.5 --drop-audio 3:3.2 --jitter 100 --drop-frames 30% --seed 7".split()
        )
        runs = []
        for _ in range(2):
            assert main(["stream", DEMO, *words]) == 0
            events = lines(capsys.readouterr().out)
            runs.append([{k: v for k, v in e.items() if k not in ("compute_ms", "latency_ms")} for e in events])
        assert runs[0] == runs[1]
        counters = runs[0][-1]["counters"]
        assert counters["samples_lost"] > 0
        assert counters["pictures"] < 60 and counters["pictures"] == sum(counters[fate] for fate in FATES)

    @pytest.mark.parametrize("words", [["--modality", "a"], []])
    def test_sound_alone(self, words: list[str], sound: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stream", DEMO if words else sound, *words]) == 0
        events = lines(capsys.readouterr().out)
        assert events[0]["event"] == "mode" and events[0]["text"] == "a" and events[0]["reason"] == "ok"
        assert events[-1]["counters"]["pictures"] == 0

    def test_real_time_takes_its_time(self, sound: str, capsys: pytest.CaptureFixture[str]) -> None:
        started = time.monotonic()
        assert main(["stream", sound, "--realtime"]) == 0
        assert time.monotonic() - started >= 3.0
        in_real_time = [event["text"] for event in lines(capsys.readouterr().out)]
        assert main(["stream", sound]) == 0
        assert [event["text"] for event in lines(capsys.readouterr().out)] == in_real_time

    def test_a_closed_domain_is_said_once_on_stderr(
        self, sound: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = dataclasses.replace(live_config(), domain="the six words of a test")
        recognizer = own_recognizer(random_network(config), tiny_tokenizer())
        monkeypatch.setattr(avsr, "load", lambda name, *, device: recognizer)
        notice = "avsr: model tiny knows only the six words of a test: other speech comes out as these\n"
        assert main(["stream", sound]) == 0
        out, err = capsys.readouterr()
        assert err == notice and len(lines(out)) > 1
        assert main(["stream", sound, "--captions"]) == 0
        assert capsys.readouterr().err.startswith(notice)
        assert main(["stream", sound, "--quiet"]) == 0
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ([DEMO, "--face", "0"], ""),
            ([DEMO, "--face", "9"], "avsr: face 9 was never seen; seen: 0\n"),
            ([DEMO, "--face", "9", "--drop-video", "0:9"], "avsr: face 9 was never seen; no face was seen\n"),
            ([DEMO, "--face", "9", "--modality", "a"], "avsr: no picture was read: --face 9 has no effect\n"),
        ],
    )
    def test_a_face_that_never_came_is_said(
        self, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["stream", *words]) == 0
        assert capsys.readouterr().err == line


class TestCaptions:
    def test_into_a_file_only_finals_are_written(self, sound: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stream", sound]) == 0
        expected = [event["text"] for event in lines(capsys.readouterr().out) if event["event"] == "final"]
        assert main(["stream", sound, "--captions"]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines() == expected and expected
        assert err == "avsr: 3.0 s of sound\n"
        assert main(["stream", sound, "--captions", "--quiet"]) == 0
        assert capsys.readouterr().err == ""

    def test_on_a_terminal_partials_are_rewritten_in_place(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "30")
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(["stream", DEMO, "--captions", "--drop-video", "1:2"]) == 0
        shown = terminal.getvalue().split("\r\x1b[K")
        assert "\r" not in "".join(shown)
        assert any(line.startswith("AV ") for line in shown) and any(line.startswith("A  ") for line in shown)
        assert any("(late)" in line or "(lost)" in line for line in shown)
        assert all(len(line) <= 30 for line in shown if not line.endswith("\n"))
        assert terminal.getvalue().endswith(("\n", "\r\x1b[K"))  # no unfinished line is left


class TestEnds:
    def test_ctrl_c_gives_what_is_known(self) -> None:
        with stream_process(DEMO, "--realtime", "--quiet") as process:
            assert process.stdout is not None and process.stderr is not None
            first = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        events = lines(first + out)
        assert (process.returncode, err) == (130, "")
        counters = events[-1]["counters"]
        assert 0 < counters["samples"] < 56_000
        assert counters["pictures"] == sum(counters[fate] for fate in FATES)

    def test_closed_pipe_is_silent(self) -> None:
        with stream_process(DEMO, "--realtime") as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.readline()
            process.stdout.close()  # like `| head -1`
            assert process.stderr.read() == ""
            process.wait(60)
        assert process.returncode == 141

    def test_a_killed_stream_leaves_whole_lines(self) -> None:
        with stream_process(DEMO, "--realtime") as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            process.kill()
            out, _ = process.communicate(timeout=30)
        assert lines(first + out)
        assert process.returncode == -signal.SIGKILL

    def test_a_reader_that_stalls_gets_everything(self) -> None:
        with stream_process(DEMO, "--chunk-ms", "80") as process:
            time.sleep(3)  # nobody reads
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert lines(out)[-1]["counters"]["samples"] == 56_471

    def test_terminal_is_left_tidy_after_ctrl_c(self) -> None:
        ours, theirs = pty.openpty()
        with stream_process(DEMO, "--realtime", "--captions", stdout=theirs) as process:
            os.close(theirs)
            shown = b""
            with_interrupt = threading.Timer(0, lambda: process.send_signal(signal.SIGINT))
            while True:
                try:
                    part = os.read(ours, 4096)
                except OSError:  # the other side is closed
                    break
                if not shown:
                    with_interrupt.start()
                shown += part
            process.wait(30)
            assert process.stderr is not None
            assert process.stderr.read().splitlines()[-1] == "avsr: interrupted"
        os.close(ours)
        assert process.returncode == 130
        assert shown.decode().replace("\r\n", "\n").endswith(("\n", "\r\x1b[K"))


class TestDevices:
    def test_microphone_that_is_unplugged_ends_it_in_order(
        self,
        microphone: type[FakeInput],
        camera: type[FakeCapture],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        threading.Timer(5.0, microphone.unplugged.set).start()
        assert main(["stream", "--mic", "--camera", "0", "--chunk-ms", "160"]) == 1
        out, err = capsys.readouterr()
        counters = lines(out)[-1]["counters"]
        assert counters["samples"] > 3200 and counters["pictures"] == sum(counters[fate] for fate in FATES) > 0
        first, last = err.splitlines()
        assert first == "avsr: listening; Ctrl-C ends"
        assert last == "avsr: the microphone has gone: got no more sound from it; plug it in, and start again"

    def test_camera_that_is_not_there_is_one_line(
        self,
        microphone: type[FakeInput],
        camera: type[FakeCapture],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        camera.plugged.clear()
        assert main(["stream", "--mic", "--camera", "2"]) == 1
        err = capsys.readouterr().err
        assert err.startswith("avsr: camera 2 cannot be opened: expected ") and err.count("\n") == 1


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ("", "nothing to listen to; name a file, or give --mic"),
            ("x.mp4 --mic", "--mic and the file x.mp4: give one of them"),
            ("x.mp4 --camera 0", "--camera needs --mic"),
            ("--mic --realtime", "--realtime is for a file"),
            ("--mic --skew 40", "--skew is for a file"),
            ("--mic --modality av", "--modality av needs a camera: add --camera 0"),
            ("x.mp4 --drop-video 3-5", "argument --drop-video: got '3-5', expected START:END in seconds, as in 3:5; d"),
            ("x.mp4 --drop-audio 5:3", "argument --drop-audio: got '5:3', expected START:END in seconds, as in 3:5; d"),
            ("x.mp4 --drop-audio one", "argument --drop-audio: got 'one', expected START:END in seconds, as in 3:5 ("),
            ("x.mp4 --drop-frames 30", "argument --drop-frames: got '30', expected a share from 0 to 1; did you mean"),
            ("x.mp4 --jitter -4", "--jitter: got -4, expected 0 to 10000"),
            ("x.mp4 --skew inf", "--skew: got inf, expected -10000 to 10000"),
            ("x.mp4 --video-fps 0", "--video-fps: got 0, expected 0.1 to 240"),
            ("x.mp4 --drop-vidoe 3:5", "unknown option --drop-vidoe; did you mean --drop-video?"),
            ("--mic --camera usb", "argument --camera: got 'usb', expected the number of a camera, as 0 for"),
        ],
    )  # fmt: skip
    def test_wrong_usage(self, words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stream", *words.split()]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"avsr: {line}") and err.count("\n") == 1

    def test_file_without_sound(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "silent.mp4"
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            container.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
            container.mux(video.encode())
        assert main(["stream", str(path)]) == 1
        assert capsys.readouterr() == (
            "",
            f"avsr: {path}: has no sound: expected sound, which is the clock of live recognition;"
            " avsr transcribe --modality v reads lips alone\n",
        )

    def test_lips_of_a_file_without_pictures(self, sound: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stream", sound, "--modality", "av"]) == 1
        assert capsys.readouterr().err == (
            f"avsr: {sound}: has no video: expected video for modality av; use modality a\n"
        )

    def test_model_for_whole_recordings(
        self, sound: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = own_recognizer(tiny_network(), tiny_tokenizer())
        monkeypatch.setattr(avsr, "load", lambda *_, **__: whole)
        assert main(["stream", sound]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("avsr: model tiny cannot stream: ") and err.count("\n") == 1

    def test_chunks_that_the_model_does_not_know(self, sound: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stream", sound, "--chunk-ms", "240"]) == 1
        err = capsys.readouterr().err
        assert "80, 160, 320, 640" in err and err.count("\n") == 1

    def test_no_microphone_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "sounddevice", None)
        assert main(["stream", "--mic"]) == 1
        assert capsys.readouterr().err == ("avsr: the microphone needs the package sounddevice; pip install '.[mic]'\n")
