"""Of several video tracks, the one with faces is read for lips."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avsr.account import Account
from avsr.lips.tracker import extract_lips
from avsr.lips.tracks import probe_faces
from avsr.media import Tracks, iter_frames

DEMO = Path(__file__).resolve().parents[1] / "avsr" / "assets" / "demo.mp4"


def lecture(path: Path, *, slides_first: bool, size: tuple[int, int] = (640, 480), with_portrait: bool = False) -> Path:
    """The demo film beside a track of slides, perhaps with a photograph of the speaker."""
    pictures = [frame.rgb for frame in iter_frames(DEMO)][:50]
    slide = np.full((size[1], size[0], 3), 250, np.uint8)
    slide[40:80, 40:300] = slide[120:140, 40:500] = 30
    if with_portrait:
        photo = pictures[0]
        slide[-photo.shape[0] :, -photo.shape[1] :] = photo[-size[1] :, -size[0] :]
    with av.open(str(path), "w") as container:
        tracks = []
        for is_slides in (slides_first, not slides_first):
            stream = container.add_stream("libx264", rate=25)
            stream.pix_fmt = "yuv420p"
            stream.width, stream.height = size if is_slides else pictures[0].shape[1::-1]
            tracks.append((stream, is_slides))
        for number, picture in enumerate(pictures):
            for stream, is_slides in tracks:
                frame = av.VideoFrame.from_ndarray(slide if is_slides else picture, format="rgb24")
                frame = frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream, _ in tracks:
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize("slides_first", [True, False])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_faces_win_over_slides(tmp_path: Path, suffix: str, slides_first: bool) -> None:
    account = Account()
    path = lecture(tmp_path / f"lecture{suffix}", slides_first=slides_first)
    info = probe_faces(path, account=account)
    camera = 2 if slides_first else 1
    assert info.tracks.video == camera
    assert account.lines()[0].startswith(f"video track {camera} of 2 is read (faces in ")
    assert account["tracks"].missing == 0
    assert extract_lips(path, tracks=info.tracks).present.mean() > 0.9


@pytest.mark.parametrize("slides_first", [True, False])
def test_a_photograph_on_the_slides_is_no_speaker(tmp_path: Path, slides_first: bool) -> None:
    path = lecture(tmp_path / "lecture.mkv", slides_first=slides_first, size=(1280, 720), with_portrait=True)
    assert probe_faces(path).tracks.video == (2 if slides_first else 1)


def test_the_track_that_was_asked_for_is_read(tmp_path: Path) -> None:
    path = lecture(tmp_path / "lecture.mkv", slides_first=True)
    account = Account()
    assert probe_faces(path, tracks=Tracks(video=1), account=account).tracks.video == 1
    assert account.lines() == []


def test_without_faces_the_default_is_read(tmp_path: Path) -> None:
    path = tmp_path / "slides.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for stream in streams:
            for number in range(10):
                frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 200, np.uint8), format="rgb24")
                frame = frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    account = Account()
    assert probe_faces(path, account=account).tracks.video == 1
    assert account.lines() == ["video track 1 of 2 is read (by its flags and quality); --video-track takes another"]
