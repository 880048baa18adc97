"""The page of `avsr serve` in a real browser, whose camera and microphone are files."""

from __future__ import annotations

import difflib
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import avsr
from avsr.media import iter_frames, read_audio
from avsr.processes import one_thread
from avsr.recognizer import Recognizer
from avsr.serving.limits import Limits
from avsr.serving.server import LiveRecognizer, Prepared, Settings, prepare
from tests.browser import ALLOWED, Browser, find_browser, write_camera, write_microphone
from tests.fake_live import FakeRecognizer
from tests.media import shared_corpus

CLIP = "grid/video/s1/bbaf4p.mp4"
WORDS = "bin blue at f four please".split()

STATE = "document.documentElement.dataset.state"
MODE = "document.documentElement.dataset.mode"
START = "document.getElementById('start').click()"
NOTICE = "document.getElementById('notice').innerText"
DOMAIN = "document.getElementById('domain')"
LINES = (
    "[...document.querySelectorAll('#log li')].map(item => [...item.querySelectorAll('.word')].map(w => w.textContent))"
)


@contextmanager
def served(recognizer: LiveRecognizer, *, token: str | None = None, **limits: float) -> Iterator[Prepared]:
    """A server in a thread."""
    find_browser()  # before anything is loaded for nothing
    prepared = prepare(recognizer, Settings(port=0, token=token, limits=Limits(**limits)))  # type: ignore[arg-type]
    thread = threading.Thread(target=prepared.run)
    thread.start()
    try:
        yield prepared
    finally:
        prepared.server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Flags for a camera that sees grey noise and a microphone that hears a tone."""
    folder = tmp_path_factory.mktemp("devices")
    draw = np.random.default_rng(1)
    camera = write_camera(folder / "camera.y4m", draw.integers(90, 160, (25, 240, 320, 3), np.uint8))
    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(20 * 16000) / 16000)
    return media_flags(camera, write_microphone(folder / "microphone.wav", tone))


def media_flags(camera: Path, microphone: Path) -> tuple[str, ...]:
    return (
        *ALLOWED,
        f"--use-file-for-fake-video-capture={camera}",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    )


class TestPage:
    """With a stand-in for the recogniser."""

    def test_from_start_to_stop(self, devices: tuple[str, ...], tmp_path: Path) -> None:
        recognizer = FakeRecognizer()
        with served(recognizer) as server, Browser(tmp_path / "profile", flags=devices) as browser:
            browser.open(server.url)
            browser.wait_for("!document.getElementById('model').hidden", 10)
            assert "fake" in browser.text()
            browser.run(START)
            browser.wait_for(f"{STATE} === 'running'", 15)
            browser.wait_for("document.getElementById('partial').innerText.includes('word1')", 15)
            assert browser.wait_for(MODE, 5) == "av"
            browser.wait_for("document.getElementById('lips').dataset.present === 'yes'", 10)
            assert "ms" in browser.run("document.getElementById('delay').innerText")
            word = "document.querySelector('.word')"
            assert browser.run(f"{word}.title") == "80 % sure, from the sound"
            assert browser.run(f"{word}.style.getPropertyValue('--sure')") == "0.800"
            kinds = browser.run("[...document.querySelectorAll('#partial .word')].map(w => w.className)")
            assert kinds == ["word committed"] * (len(kinds) - 1) + ["word"]

            heard_s = recognizer.sessions[-1].counters["samples"] / 16000
            pictures = recognizer.sessions[-1].counters["pictures"]
            assert 10 <= pictures / heard_s <= 27

            browser.run(START)
            browser.wait_for(f"{STATE} === 'idle'", 10)
            assert browser.run(LINES)[0][:2] == ["word0", "word1"]
            assert browser.run("document.getElementById('camera').srcObject") is None
            assert recognizer.sessions[-1].is_closed
            assert browser.errors == []

            browser.run(START)  # once more
            browser.wait_for("document.getElementById('partial').innerText.includes('word0')", 15)

    def test_words_without_a_confidence_are_shown(self, devices: tuple[str, ...], tmp_path: Path) -> None:
        with (
            served(FakeRecognizer(confidence=None)) as server,
            Browser(tmp_path / "profile", flags=devices) as browser,
        ):
            browser.open(server.url)
            browser.run(START)
            browser.wait_for("document.getElementById('partial').innerText.includes('word1')", 15)
            assert browser.run("document.querySelector('.word').title") == "from the sound"
            assert not browser.run("document.querySelector('.word').classList.contains('doubtful')")
            browser.run(START)
            browser.wait_for(f"{STATE} === 'idle'", 10)
            assert browser.run(LINES)[0][:2] == ["word0", "word1"]
            assert browser.run("document.getElementById('confidence').innerText") == "–"
            assert browser.errors == []

    def test_captions_can_be_saved(self, devices: tuple[str, ...], tmp_path: Path) -> None:
        """As text and as subtitles, made in the page from the final words; also after the session, until Clear."""
        downloads = tmp_path / "downloads"
        downloads.mkdir()

        def save(kind: str, ending: str) -> str:
            browser.run(f"document.getElementById('save-{kind}').click()")
            end_s = time.monotonic() + 10
            while not (files := list(downloads.glob(f"captions-*.{ending}"))):
                assert time.monotonic() < end_s, "nothing was saved"
                time.sleep(0.1)
            content = files[0].read_text(encoding="utf-8")
            files[0].unlink()
            return content

        def is_disabled(kind: str) -> bool:
            return browser.run(f"document.getElementById('{kind}').disabled")

        with served(FakeRecognizer()) as server, Browser(tmp_path / "profile", flags=devices) as browser:
            browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
            browser.open(server.url)
            assert is_disabled("save-text") and is_disabled("save-srt")
            browser.run(START)
            browser.wait_for("document.getElementById('partial').innerText.includes('word1')", 15)
            browser.run(START)
            browser.wait_for(f"{STATE} === 'idle' && {LINES}.length === 1", 10)
            (words,) = browser.run(LINES)
            assert save("text", "txt") == " ".join(words) + "\n"
            number, times, text = save("srt", "srt").splitlines()
            assert (number, text) == ("1", " ".join(words))
            assert re.fullmatch(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}", times)
            browser.run("document.getElementById('clear').click()")
            assert is_disabled("save-text") and is_disabled("save-srt")
            assert browser.errors == []

    def test_subtitles_fit_on_a_screen_and_do_not_overlap(self, tmp_path: Path) -> None:
        """Two lines of 42 characters at most; 0.8 s at least, unless the next cue begins before."""
        script = """import("./captions.js").then(({ toSrt }) => {
          const later = ([word, start, end]) => ({ word, start: 100 + start, end: 100 + end });
          const final = (...words) => ({ words: words.map(later) });
          const long = Array.from({ length: 20 }, (_, i) => ["longword" + i, 3600 + i, 3600.5 + i]);
          return toSrt([final(["yes", 1, 1.1]), final(["no", 1.5, 1.6]), final(["-->", 3, 3.2]), final(...long)], 100);
        })"""
        with served(FakeRecognizer()) as server, Browser(tmp_path / "profile") as browser:
            browser.open(server.url)
            cues = [cue.split("\n") for cue in browser.run(script).rstrip("\n").split("\n\n")]
        assert [cue[0] for cue in cues] == ["1", "2", "3", "4", "5", "6"]
        assert [cue[1:] for cue in cues[:3]] == [
            ["00:00:01,000 --> 00:00:01,500", "yes"],
            ["00:00:01,500 --> 00:00:02,300", "no"],
            ["00:00:03,000 --> 00:00:03,800", "->"],
        ]
        assert max(len(line) for cue in cues for line in cue[2:]) <= 42
        assert cues[3][1].startswith("01:00:00,000 --> ") and cues[-1][1].endswith(" --> 01:00:19,500")
        assert " ".join(line for cue in cues[3:] for line in cue[2:]).split() == [f"longword{i}" for i in range(20)]

    def test_a_closed_domain_is_said_all_the_time(self, devices: tuple[str, ...], tmp_path: Path) -> None:
        notice = "Model fake knows only the six words of a test: other speech comes out as these."
        recognizer = FakeRecognizer(domain="the six words of a test")
        with served(recognizer) as server, Browser(tmp_path / "profile", flags=devices) as browser:
            browser.open(server.url)
            browser.wait_for(f"{DOMAIN}.innerText === '{notice}'", 10)
            browser.run(START)
            browser.wait_for("document.getElementById('partial').innerText.includes('word0')", 15)
            assert notice in browser.text()
            browser.run(START)
            browser.wait_for(f"{STATE} === 'idle'", 10)
            assert notice in browser.text()
            recognizer.card = recognizer.card._replace(domain="open")
        with served(recognizer) as server, Browser(tmp_path / "open", flags=devices) as browser:
            browser.open(server.url)
            browser.wait_for("!document.getElementById('model').hidden", 10)
            assert browser.run(f"{DOMAIN}.hidden")

    def test_words_that_are_taken_back_leave_a_note(self, devices: tuple[str, ...], tmp_path: Path) -> None:
        with served(FakeRecognizer(foreign=True)) as server:
            with Browser(tmp_path / "profile", flags=devices) as browser:
                browser.open(server.url)
                browser.run(START)
                browser.wait_for("document.getElementById('partial').innerText.includes('word0')", 15)
                browser.run(START)
                browser.wait_for(f"{STATE} === 'idle'", 10)
                assert "left out: not the speech that the model knows" in browser.text()
                assert "word0" not in browser.text()
                assert browser.errors == []

    def test_devices_change_while_it_runs(self, devices: tuple[str, ...], tmp_path: Path) -> None:
        recognizer = FakeRecognizer()

        def choose(kind: str, value: str) -> None:
            browser.run(
                f"(list => (list.value = '{value}', list.dispatchEvent(new Event('change'))))"
                f"(document.getElementById('{kind}'))"
            )

        def counts() -> tuple[int, int]:
            counters = recognizer.sessions[-1].counters
            return counters["samples"], counters["pictures"]

        def grows(which: int) -> bool:
            before = counts()[which]
            time.sleep(0.6)
            return counts()[which] > before + (100 if which == 0 else 2)

        with served(recognizer) as server, Browser(tmp_path / "profile", flags=devices) as browser:
            browser.open(server.url)
            choose("cameras", "none")
            browser.run(START)
            browser.wait_for(f"{STATE} === 'running' && {MODE} === 'a'", 15)
            assert "no camera" in browser.text()
            assert grows(0) and counts()[1] == 0
            choose("cameras", "")
            browser.wait_for("document.documentElement.dataset.camera === 'on'", 10)
            assert grows(0) and grows(1)
            choose("microphones", "none")
            time.sleep(0.3)
            assert not grows(0) and grows(1)
            choose("microphones", "")
            time.sleep(0.3)
            assert grows(0) and grows(1)
            assert len(recognizer.sessions) == 2  # the server's own, and one
            assert browser.errors == []

    def test_what_is_refused_or_missing_is_said(self, devices: tuple[str, ...], tmp_path: Path) -> None:
        fake = ALLOWED[1]
        with served(FakeRecognizer(), max_sessions=1) as server:
            for number, (flags, title) in enumerate(
                (
                    ((fake, "--deny-permission-prompts"), "Camera and microphone are not allowed"),
                    (ALLOWED[:1], "Neither a microphone nor a camera was found"),
                )
            ):
                with Browser(tmp_path / f"profile{number}", flags=flags) as browser:
                    browser.open(server.url)
                    browser.run(START)
                    browser.wait_for(f"{NOTICE}.includes('{title}')", 10)
                    assert browser.run(STATE) == "idle"

            no_camera = (*ALLOWED, f"{fake}=device-count=0")
            with Browser(tmp_path / "no-camera", flags=no_camera) as browser:
                browser.open(server.url)
                browser.run(START)
                browser.wait_for(f"{STATE} === 'running' && {MODE} === 'a'", 15)
                assert "Going on with the sound alone" in browser.run(NOTICE)

                with Browser(tmp_path / "second", flags=devices) as second:
                    second.open(server.url)
                    second.run(START)
                    second.wait_for(f"{NOTICE}.includes('The server is busy')", 10)
                    assert "all 1 sessions are in use" in second.run(NOTICE).lower()

                server.server.should_exit = True
                browser.wait_for(f"{NOTICE}.includes('No connection to the server')", 10)
                assert browser.run(STATE) == "idle"

    def test_token(self, devices: tuple[str, ...], tmp_path: Path) -> None:
        with served(FakeRecognizer(), token="a-token-of-some-length") as server:
            with Browser(tmp_path / "profile", flags=devices) as browser:
                browser.open(server.url.partition("?")[0])
                assert "needs the token" in browser.text()
                browser.open(server.url)
                browser.run(START)
                browser.wait_for(f"{STATE} === 'running'", 15)

    def test_insecure_address(self, tmp_path: Path) -> None:
        with served(FakeRecognizer()) as server:
            with Browser(tmp_path / "profile") as browser:
                browser.call(
                    "Page.addScriptToEvaluateOnNewDocument",
                    source="Object.defineProperty(window, 'isSecureContext', {value: false})",
                )
                browser.open(server.url)
                assert "gives no camera and microphone to this address" in browser.run(NOTICE)

    def test_sound_of_any_rate_becomes_16_khz(self, tmp_path: Path) -> None:
        """Tones pass as they are, those above 8 kHz are gone, and times go with the samples."""
        script = """(async (rate, hz) => {
          const context = new OfflineAudioContext(1, 2 * rate, rate);
          await context.audioWorklet.addModule("microphone.js");
          const node = new AudioWorkletNode(context, "microphone");
          const tone = new OscillatorNode(context, { frequency: hz });
          tone.connect(node).connect(context.destination);
          const blocks = [];
          node.port.onmessage = ({ data }) => blocks.push(data);
          tone.start();
          await context.startRendering();
          await new Promise((resolve) => setTimeout(resolve, 300));
          const middle = blocks.slice(20, 80);
          const samples = middle.flatMap((block) => [...block.samples]);
          const level = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length) / 32768;
          const error = Math.max(...blocks.map((block, i) => Math.abs(block.time - blocks[0].time - 0.02 * i)));
          // How far the tone is from where its time says, in samples: the phase of its own correlation.
          let [re, im] = [0, 0];
          middle.forEach((block) => block.samples.forEach((x, i) => {
            const phase = 2 * Math.PI * hz * (block.time + i / 16000);
            re += x * Math.sin(phase);
            im += x * Math.cos(phase);
          }));
          return [blocks.length, level, error, Math.atan2(im, re) / (2 * Math.PI * hz)];
        })"""
        with served(FakeRecognizer()) as server, Browser(tmp_path / "profile") as browser:
            browser.open(server.url)
            for rate in (16000, 44100, 48000, 96000, 8000):
                for hz in (1000, 3300, 6600):
                    if hz > 0.2 * rate:  # where the browser's tone itself is weaker
                        continue
                    blocks, level, error, shift_s = browser.run(f"{script}({rate}, {hz})")
                    assert blocks >= 95, (rate, hz)
                    assert level == pytest.approx(0.7071, abs=0.01), (rate, hz)
                    assert error < 1e-9, (rate, hz)
                    assert abs(shift_s) < 5e-6, (rate, hz)
            for rate, hz in ((44100, 9000), (48000, 9000), (48000, 15000), (96000, 30000)):
                assert browser.run(f"{script}({rate}, {hz})")[1] < 0.001, (rate, hz)


def live_model() -> Recognizer:
    """The shipped model, or the one that AVSR_TEST_LIVE_MODEL names."""
    recognizer = avsr.load(os.environ.get("AVSR_TEST_LIVE_MODEL", "grid-tiny"))
    return recognizer


ATTEMPTS = 3
"""In one run of five or six the first sentence comes out wrong. The likely cause: Chromium starts its stand-ins for
camera and microphone apart, mostly by a third of a second but not always. Then lips and sound do not belong together,
and no page could know. A page or a model that is at fault fails every time."""


def test_words_of_a_real_face_and_without_it(tmp_path: Path) -> None:
    """A talker whose camera is covered after the first sentence: the words, and the badge that says so."""
    find_browser()
    clip = shared_corpus(CLIP)
    pictures = [frame.rgb for frame in iter_frames(clip)]
    samples = read_audio(clip)[: len(pictures) * 640]
    pause = np.resize(samples[:8000], 16000)  # the room before the first word; zeros would be a microphone that is off
    # Chromium opens the camera a third of a second after the microphone.
    camera = [pictures[0]] * 16 + pictures + [pictures[-1]] * 25 + [np.zeros_like(pictures[0])] * (len(pictures) + 75)
    devices = media_flags(
        write_camera(tmp_path / "camera.y4m", camera),
        write_microphone(tmp_path / "microphone.wav", np.concatenate((pause, samples, pause, pause, samples, pause))),
    )
    recognizer = live_model()
    for attempt in range(ATTEMPTS):
        with (
            one_thread(),  # as avsr serve has it: more threads of torch would take the browser's time
            served(recognizer) as server,
            Browser(tmp_path / f"profile-{attempt}", flags=devices) as browser,
        ):
            browser.open(server.url)
            browser.run(START)
            browser.wait_for(f"{MODE} === 'av'", 20)
            browser.wait_for(f"{LINES}.length >= 1", 15)
            first = browser.run(LINES)[0]
            if not alike(first, WORDS) and attempt < ATTEMPTS - 1:
                continue
            assert alike(first, WORDS), first
            browser.wait_for(f"{MODE} === 'a'", 10)
            assert "Sound alone" in browser.text()
            # The first reason may be that pictures are late. The page shows lip crops up to a chunk later than words.
            browser.wait_for("document.body.innerText.includes('no face in the picture')", 5)
            browser.wait_for("document.getElementById('lips').dataset.present === 'no'", 5)
            browser.wait_for(f"{LINES}.length >= 2", 15)
            assert alike(browser.run(LINES)[1], WORDS, 0.6), browser.run(LINES)
            browser.run(START)
            browser.wait_for(f"{STATE} === 'idle'", 10)
            assert browser.errors == []
            return


def alike(words: list[str], expected: list[str], least: float = 0.8) -> bool:
    """Whether all words but one in six, or as many as may be wrong, are right."""
    return difflib.SequenceMatcher(None, words, expected, autojunk=False).ratio() >= least
