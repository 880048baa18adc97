"""What `avsr doctor` says of files: of whole ones, of broken ones, and in what form."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from avsr.cli.main import main
from avsr.datasets.manifest import save_samples
from avsr.lips.contact_sheet import COLUMNS, MAX_FACES, SheetRecord
from avsr.lips.quality import FaceQuality
from avsr.lips.slots import LipSlot, Slot
from avsr.media import AudioStreamInfo, MediaInfo, VideoStreamInfo
from avsr.offline.advice import FaceReport, PictureTiming, SoundQuality, advise
from avsr.offline.diagnosis import diagnose
from avsr.speakers.offset import Offset
from tests.media import shared_clip

DEMO = Path(__file__).resolve().parents[1] / "avsr" / "assets" / "demo.mp4"


def tone(path: Path, seconds: float = 2.0, level: float = 0.5) -> Path:
    times = np.arange(round(16_000 * seconds)) / 16_000
    save_samples(path, (level * np.sin(2 * np.pi * 440 * times)).astype(np.float32))
    return path


class TestCommand:
    def test_text_and_sheet(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        sheet = tmp_path / "sheet.png"
        assert main(["doctor", str(DEMO), "--sheet", str(sheet)]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines()[0] == f"{DEMO}: ok"
        assert "25.00 pictures a second" in out and "face 0" in out
        assert err == f"avsr: wrote {sheet}\n"
        picture = cv2.imread(str(sheet), cv2.IMREAD_GRAYSCALE)
        assert picture.shape[1] > COLUMNS * 96
        assert picture[20:110].std() > 20  # crops, and not an empty row
        assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]

    def test_json_is_the_documented_schema(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", str(DEMO), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert list(found) == [
            "schema",
            "source",
            "streams",
            "video",
            "offset_ms",
            "faces",
            "account",
            "advice",
            "severity",
        ]
        assert found["schema"] == 1
        assert [stream["kind"] for stream in found["streams"]] == ["video", "audio"]
        assert set(found["video"]) == {"fps", "jitter_ms", "rotation", "width", "height"}
        assert set(found["offset_ms"]) == {"value", "confidence"}
        (face,) = found["faces"]
        assert set(face) == {"id", "coverage", "covered", "width_px", "sharpness", "yaw_deg", "speaking", "spans"}
        assert face["coverage"] > 0.9 and face["covered"] == 0.0 and face["spans"][0][0] == 0.0
        assert 0.0 <= face["speaking"] <= 1.0

    def test_sound_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", str(tone(tmp_path / "a.wav")), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["video"] is None and found["offset_ms"] is None and found["faces"] == []
        assert found["severity"] == "warn" and "no picture" in found["advice"][0]
        assert found["streams"][0]["level_db"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)

    def test_a_fault_gives_exit_code_1(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", str(tone(tmp_path / "a.wav", level=0.0))]) == 1
        assert "the sound is silent" in capsys.readouterr().out

    def test_what_is_no_media_is_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "text.mp4").write_text("hello")
        assert main(["doctor", str(tmp_path / "text.mp4")]) == 1
        assert main(["doctor", str(tmp_path / "none.mp4")]) == 1
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 2
        assert "cannot be opened as media" in err and "no such file" in err

    @pytest.mark.parametrize("sheet", ["sheet.jpg", "talk.png", "nowhere/sheet.png"])
    def test_a_sheet_that_cannot_be(
        self, sheet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        tone(tmp_path / "talk.png")
        assert main(["doctor", "talk.png", "--sheet", sheet]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["talk.png"]


class TestRealClips:
    def test_late_sound_is_told(self) -> None:
        found = diagnose(shared_clip("audio_starts_400ms_late.mp4"))
        assert found.offset is not None
        assert abs(found.offset.ms - 376) <= 40
        assert found.severity == "bad" and "later than the lips" in found.advice[0]

    def test_truncated_file_keeps_what_decodes(self) -> None:
        found = diagnose(shared_clip("truncated_faststart.mp4"))
        assert found.severity == "bad" and "damaged" in found.advice[0]
        assert len(found.faces) == 1

    def test_no_face(self) -> None:
        found = diagnose(shared_clip("no_face_brick_wall_no_audio.mp4"))
        assert found.severity == "bad" and found.faces == () and found.offset is None


def face(
    number: int = 0,
    *,
    width_px: float = 150.0,
    speaking: float | None = 1.0,
    yaw: float = 3.0,
    coverage: float = 0.9,
    covered: float = 0.0,
) -> FaceReport:
    coverage = coverage if number == 0 else 0.0
    return FaceReport(FaceQuality(number, ((0.0, 3.0),), coverage, width_px, 0.1, yaw, covered), speaking)


def advice(
    *,
    sound: SoundQuality | None = SoundQuality(-20.0, 30.0, 0.0, 0.1),  # noqa: B008
    timing: PictureTiming = PictureTiming(25.0, 0.0),  # noqa: B008
    offset: Offset | None = Offset(10.0, 0.9),  # noqa: B008
    faces: tuple[FaceReport, ...] = (face(),),  # noqa: B008
    num_tracks: int = 1,
) -> list[tuple[str, str]]:
    audio = AudioStreamInfo(1, "aac", 16_000, 1, 0.0, "")
    video = VideoStreamInfo(1, "h264", 640, 480, 25.0, 0, 1.0, 0.0, "")
    others = tuple(AudioStreamInfo(number, "aac", 16_000, 1, 0.0, "") for number in range(2, num_tracks + 1))
    info = MediaInfo(Path("talk.mp4"), 3.0, audio, video, (audio, *others), (video,))
    return list(advise(info, sound, timing, offset, faces))


class TestAdvice:
    def test_nothing_wrong(self) -> None:
        assert advice() == []

    @pytest.mark.parametrize(
        ("change", "severity", "words"),
        [
            ({"faces": (face(width_px=38.0),)}, "warn", "the face is 38 px wide: video will hardly help"),
            ({"faces": (face(yaw=50.0),)}, "warn", "turned away by 50 degrees"),
            ({"faces": (face(coverage=0.6, covered=0.32),)}, "warn", "the mouth of face 0 is covered 32% of the time"),
            ({"faces": ()}, "warn", "no face in the picture"),
            ({"offset": Offset(120.0, 0.9)}, "warn", "120 ms later than the lips: move the sound by -120 ms"),
            ({"offset": Offset(-250.0, 0.9)}, "bad", "250 ms earlier than the lips: move the sound by +250 ms"),
            ({"timing": PictureTiming(12.5, 0.0)}, "warn", "12 pictures a second"),
            ({"timing": PictureTiming(25.0, 30.0)}, "warn", "irregularly"),
            ({"sound": SoundQuality(-70.0, 2.0, 0.0, 1.0)}, "bad", "silent"),
            ({"sound": SoundQuality(-5.0, 30.0, 0.02, 0.0)}, "warn", "2.0% of the sound is clipped"),
            ({"sound": SoundQuality(-20.0, 4.0, 0.0, 0.0)}, "warn", "noisy"),
        ],
    )
    def test_one_thing_wrong(self, change: dict[str, object], severity: str, words: str) -> None:
        ((got, text),) = advice(**change)  # type: ignore[arg-type]
        assert got == severity and words in text

    @pytest.mark.parametrize("sound", [SoundQuality(-70.0, 2.0, 0.0, 1.0), SoundQuality(-20.0, 4.0, 0.0, 0.0)])
    def test_another_track_is_named_if_there_is_one(self, sound: SoundQuality) -> None:
        ((_, text),) = advice(sound=sound, num_tracks=3)
        assert text.endswith(", or read another track: --audio-track 2 or --audio-track 3")
        ((_, text),) = advice(sound=sound)
        assert "track" not in text

    def test_an_offset_that_is_not_sure_is_not_advised_on(self) -> None:
        assert advice(offset=Offset(300.0, 0.5)) == []

    def test_of_several_faces_the_speaking_one_counts(self) -> None:
        faces = (face(0, width_px=30.0, speaking=0.1), face(1, width_px=200.0, speaking=0.9))
        assert advice(faces=faces) == []


def test_sheet_keeps_few_crops_of_few_faces() -> None:
    record = SheetRecord()
    for index in range(3000):
        number = index // 100
        crop = np.full((96, 96), index % 256, np.uint8)
        record.add(Slot(index, {number: LipSlot(index, crop, True, "ok", number)}))
    assert len(record._crops) <= MAX_FACES
    assert all(len(kept) <= 2 * COLUMNS for kept in record._crops.values())
    assert 29 in record._crops  # the last one is not crowded out by older ones
    assert record.draw({}).shape[1] > COLUMNS * 96
