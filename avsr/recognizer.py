"""The whole path: a file or samples in, a transcript or log-probabilities out."""

from __future__ import annotations

import contextlib
import copy
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsr.decoding.alignment import align_greedy
from avsr.decoding.tokenizer import Tokenizer
from avsr.errors import ConfigError, MediaError, ModelError, nearest
from avsr.families.hub import fetch, is_hub_id
from avsr.families.nemo import SUFFIX as NEMO_SUFFIX
from avsr.families.nemo import load_nemo
from avsr.families.own.checkpoint import load_checkpoint, read_config
from avsr.families.own.config import ModelConfig
from avsr.families.own.network import LipFrames, Network, NetworkOutput, NetworkState
from avsr.grid import CROP_PX, FRAME_SAMPLES, HOP_MS, LIP_INPUT_PX, SLOT_MS, Modality
from avsr.lips.crops import centre_crop
from avsr.lips.slots import Slot
from avsr.media import probe
from avsr.nn.masks import AttentionContext
from avsr.offline.windows import Window, windows
from avsr.sound.mel import LogMel
from avsr.sound.silence import NOT_HEARD, audible_frames, within_reach
from avsr.transcript import Segment, Transcript, VideoSummary, Word

if TYPE_CHECKING:
    from avsr.streaming import Session

ASSETS = Path(__file__).parent.parent / "assets"
SEGMENT_PAUSE_S = 0.5
MAX_SEGMENT_S = 12.0
WINDOW_FRAME_MS = 2 * SLOT_MS  # in which windows are counted, whatever the model's own frames are

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ModalityChoice = Literal["auto", "av", "a", "v"]


def shipped() -> list[tuple[str, ModelConfig]]:
    """The models that come with the package: name and configuration."""
    folders = sorted(path.parent for path in ASSETS.glob("*/config.yaml"))
    return [(folder.name, read_config(folder)) for folder in folders]


def load(
    name_or_path: str | PathLike[str], *, device: str | torch.device = "auto", dtype: torch.dtype | None = None
) -> Recognizer:
    """See `avsr.load`."""
    name = os.fsdecode(name_or_path)
    if dtype not in (None, *DTYPES):
        expected = ", ".join(str(known) for known in DTYPES)
        raise ConfigError("unknown dtype", got=repr(dtype), expected=f"None or {expected}")
    chosen = _device(device)
    folder = ASSETS / name
    is_name = Path(name).name == name
    if not (is_name and os.path.isfile(folder / "config.yaml")):
        folder = Path(name)
        if not os.path.exists(folder) and is_hub_id(name):
            folder = fetch(name)
        if folder.suffix == NEMO_SUFFIX and not os.path.exists(folder):
            raise ModelError(f"{name}: no such file", expected=f"a {NEMO_SUFFIX} archive", remedy="check the path")
        if not name or not os.path.exists(folder):
            names = [path.parent.name for path in ASSETS.glob("*/config.yaml")]
            close = nearest(name, names)
            raise ModelError(
                f"no model {name!r}",
                expected=f"a shipped one ({', '.join(names)}), a checkpoint folder or a .nemo file",
                remedy=f"did you mean {close}?" if close else "check the path",
            )
        if not folder.is_dir() and folder.suffix != NEMO_SUFFIX:
            raise ModelError(f"{name}: not a checkpoint", got="a file", expected="a checkpoint folder or a .nemo file")
    network: Network
    tokenizer: Tokenizer
    if folder.is_dir():
        network, tokenizer = load_checkpoint(folder)
    else:
        network, tokenizer = load_nemo(folder)
    return Recognizer(network, tokenizer, device=chosen, dtype=dtype)


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise ConfigError("unknown device", got=repr(device), expected="auto, cpu, cuda or cuda:N") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {chosen} is not supported", expected="auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {chosen} is not there",
            got=f"{torch.cuda.device_count()} GPUs",
            remedy="use device auto or cpu",
        )
    return chosen


class EncodedSound(NamedTuple):
    """A batch of sounds after the audio encoder: frames [B, T, D], and how many of each count, int64 [B]."""

    frames_BTD: Tensor
    lengths: Tensor


class EncodedLips(NamedTuple):
    """A batch of lips after the visual encoder, and how many frames of each item count, int64 [B]."""

    frames: LipFrames
    lengths: Tensor


class Recognizer:
    """A loaded model: the network, its units, and everything from a file to a transcript.

    dtype: torch.bfloat16 or torch.float16 computes in that precision where it pays; None or float32 in full. The
    weights stay float32.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.network = network.eval().to(self.device)
        self.tokenizer = tokenizer
        self.dtype = dtype or torch.float32
        self._attention: AttentionContext | None = None
        self.network.pack(self.dtype)
        self.log_mel = LogMel(network.config.mel).to(self.device)

    @property
    def config(self) -> ModelConfig:
        return self.network.config

    @property
    def name(self) -> str:
        return self.config.name

    def in_chunks(self, chunk_ms: int) -> Recognizer:
        """The same model, which hears and sees whole utterances as it would live in chunks of `chunk_ms`: the results
        are those of `stream`, at the cost of one pass. Raises ConfigError for chunks that it was not trained for."""
        live = copy.copy(self)
        live._attention = self.config.chunk_context(chunk_ms)
        return live

    def features(self, samples: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
        """Log-mel features of utterances: float32 [B, n_mels, T], frame counts [B] (10 ms each).

        samples: arrays [S] at 16 kHz in [-1, 1], of any lengths. Raises ValueError for another shape or for values
        that are not finite.
        """
        padded, counts = _pad(samples)
        return self.log_mel(padded.to(self.device), counts.to(self.device))

    @torch.inference_mode()
    def log_probs(
        self,
        samples: Sequence[NDArray[np.float32]] | None,
        lips: Sequence[NDArray[np.uint8]] | None = None,
        presence: Sequence[NDArray[np.bool_]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What transcription decodes: log-probabilities float32 [B, T, V + 1] with the blank last, frame counts [B].

        samples: as for `features`; None to use the lips alone. lips: crops uint8 [T_lip, 96, 96] of each utterance, 40
        ms a slot; where they end before the sound, the rest is absent. presence: bool [T_lip] of each, None for all
        present. Raises ModelError for what the model was not trained for, ValueError when neither is given or their
        numbers or shapes are wrong.
        """
        if not (samples is None or len(samples)) or not (lips is None or len(lips)):
            raise ValueError("log_probs: got no utterances, expected one or more")
        if lips is not None or samples is not None:
            self.require("a" if lips is None else "v" if samples is None else "av")
        sound = self.encode_sound(samples) if samples is not None else None
        seen = self.encode_lips(lips, presence, sound) if lips is not None else None
        return self.fuse(sound, seen)

    @torch.inference_mode()
    def encode_sound(self, samples: Sequence[NDArray[np.float32]]) -> EncodedSound:
        """The first part of `log_probs`, for those who fuse the same sound with several lips."""
        mel, lengths = self.features(samples)
        if mel.shape[-1] == 0:  # less than 10 ms of sound
            width = self.config.audio_encoder.conformer.width
            return EncodedSound(mel.new_zeros(len(mel), 0, width), lengths * 0)
        with self._precision():
            frames_BTD, frame_lengths, _ = self.network.audio_encoder(mel, lengths, attention=self._attention)
        return EncodedSound(frames_BTD, frame_lengths)

    @torch.inference_mode()
    def encode_lips(
        self,
        lips: Sequence[NDArray[np.uint8]],
        presence: Sequence[NDArray[np.bool_]] | None = None,
        sound: EncodedSound | None = None,
    ) -> EncodedLips:
        """The visual part of `log_probs`, for those who fuse the same lips with several sounds of the same lengths.

        sound: what they will be fused with, None to use the lips alone: it says how long the items are.
        """
        if self.network.visual_encoder is None:
            self.require("v")
        if presence is None:
            presence = [np.ones(len(crops), bool) for crops in lips]
        expected = len(lips if sound is None else sound.lengths)
        if not len(lips) == len(presence) == expected:
            raise ValueError(f"got {len(lips)} lips and {len(presence)} presences, expected {expected} of each")
        lips_BT1HW, presence_BT = self.lip_tensors(lips, presence)
        if sound is None:
            lengths = self.lip_lengths(lips)
            frames = int(lengths.max())
        else:
            lengths, frames = sound.lengths, sound.frames_BTD.shape[1]
        if frames == 0:
            empty = lips_BT1HW.new_zeros(len(lips), 0, self.config.audio_encoder.conformer.width)
            return EncodedLips(LipFrames(empty, presence_BT[:, :0]), lengths)
        with self._precision():
            encoded, _ = self.network.encode_lips(lips_BT1HW, presence_BT, lengths, frames, attention=self._attention)
        return EncodedLips(encoded, lengths)

    def lip_lengths(self, lips: Sequence[NDArray[np.uint8]]) -> Tensor:
        """How many frames these lips are by themselves: int64 [B]."""
        counts = torch.tensor([len(crops) * SLOT_MS // HOP_MS for crops in lips], device=self.device)
        return self.network.audio_encoder.subsampling.output_lengths(counts)

    @torch.inference_mode()
    def fuse(self, sound: EncodedSound | None, lips: EncodedLips | None = None) -> tuple[Tensor, Tensor]:
        """The last part of `log_probs`, and what it returns. Raises ValueError for neither, or of different lengths."""
        if sound is None and lips is None:
            raise ValueError("log_probs: got neither samples nor lips, expected at least one")
        if sound is not None and lips is not None and not torch.equal(sound.lengths, lips.lengths):
            raise ValueError(f"got sound of {sound.lengths.tolist()} frames, lips of {lips.lengths.tolist()}")
        lengths = sound.lengths if sound is not None else lips.lengths  # type: ignore[union-attr]
        if not int(lengths.max()):
            return torch.zeros(len(lengths), 0, self.network.blank_id + 1, device=self.device), lengths
        with self._precision():
            if self.config.decodes == "sides":
                log_probs = self.network.side_log_probs(
                    None if sound is None else sound.frames_BTD, None if lips is None else lips.frames
                )
            else:
                log_probs, _ = self.network.fuse(
                    None if sound is None else sound.frames_BTD,
                    lengths,
                    None if lips is None else lips.frames,
                    attention=self._attention,
                )
        return log_probs, lengths

    def transcribe(
        self,
        path: str | PathLike[str],
        *,
        modality: ModalityChoice = "auto",
        face: str | int = "auto",
        on_progress: Callable[[float], None] | None = None,
    ) -> Transcript:
        """What is said in a video or sound file.

        modality: "a" sound, "v" lips, "av" both, "auto" what the file offers and the model was trained for. face: whose
        lips, "auto", "largest" or the number of a face, as words have it. on_progress: called with the media seconds
        done. Where neither sound nor lips are near there are no words. Raises MediaError when the file cannot be read
        or lacks what the modality needs or the face that was asked for, ModelError when the model cannot use it,
        ConfigError for an unknown modality or face.
        """
        if modality not in ("auto", "av", "a", "v"):
            raise ConfigError("unknown modality", got=modality, expected="auto, av, a or v")
        face = str(face)
        source = path = os.fsdecode(path)
        if not path:
            raise MediaError("no file", got=repr(path), expected="the path of a video or sound file")
        info = probe(path)
        if modality != "auto":
            self.require(modality)
        if info.audio is None and modality in ("a", "av"):
            remedy = "use modality v or auto" if info.video is not None else None
            raise MediaError(f"{source}: has no sound", expected=f"sound for modality {modality}", remedy=remedy)
        if info.video is None and modality in ("v", "av"):
            raise MediaError(
                f"{source}: has no video", expected=f"video for modality {modality}", remedy="use modality a"
            )
        sound = info.audio is not None and modality != "v"
        picture = info.video is not None and modality != "a" and self.config.modalities != ("a",)
        warnings: list[str] = []
        if sound and picture and "av" not in self.config.modalities:  # one of them
            sound = "a" in self.config.modalities
            picture = not sound
            if not sound:
                warnings.append(f"recognised from the lips alone: model {self.name} was not trained for sound")
        if sound and self.config.modalities == ("v",):
            raise MediaError(f"{source}: has no video", remedy=f"use a model that hears; {self.name} only reads lips")
        if not sound and not picture:
            raise MediaError(f"{source}: has no sound", remedy=f"use a model that reads lips; {self.name} only hears")

        pieces: list[Tensor] = []
        lips = _LipRecord()
        heard: list[bool] = []  # of each 80 ms of the file
        end_s = 0.0
        cut = windows(
            path,
            sound=sound,
            picture=picture,
            face=face,
            end_s=info.duration_s or 0.0,
            on_slot=lips.see,
            on_warning=warnings.append,
        )
        with contextlib.closing(cut):  # stops its threads also when the work ends in an error or Ctrl-C
            for window in cut:
                pieces.append(self._run_window(window))
                lips.add(window)
                heard.extend(_heard(window))
                end_s = window.keep[1] * 2 * SLOT_MS / 1000
                if on_progress is not None:
                    on_progress(min(end_s, info.duration_s or end_s))
        if picture and face.isdigit() and int(face) not in lips.seen:
            raise MediaError(
                f"{source}: face {int(face)} is not in the picture",
                got=lips.who(),
                expected="the number of a face that is",
                remedy="use face auto, or one of these numbers" if lips.seen else "use face auto",
            )
        if picture and not lips.count and not sound:
            raise MediaError(
                f"{source}: nothing to recognise",
                got=f"no sound{' used' if info.audio is not None else ''} and no readable face ({lips.why_not()})",
                remedy="film the speaker's face from the front"
                + (", or use modality a" if info.audio is not None else ""),
            )
        if sound and not any(heard):
            warnings.append("the sound is silent" + (": recognised from the lips alone" if lips.count else ""))
        if picture and not lips.count:
            alone = ": recognised from sound alone" if any(heard) else ""
            warnings.append(f"no readable face ({lips.why_not()}){alone}")
        log_probs_TV = torch.cat(pieces) if pieces else torch.zeros(0, self.config.vocabulary_size + 1)
        duration_s = info.duration_s or end_s
        words = [self._word(*word, lips, heard, duration_s=duration_s) for word in self.words(log_probs_TV)]
        used: Modality = ("av" if any(heard) else "v") if lips.count else "a"
        summary = None
        if picture and info.video is not None:
            summary = VideoSummary(fps=info.video.average_fps, faces=len(lips.seen), coverage=lips.coverage)
        return Transcript(
            source=source,
            duration=duration_s,
            model=self.name,
            modality=used,
            segments=tuple(_segments(words)),
            video=summary,
            warnings=tuple(warnings),
        )

    def require(self, modality: Modality) -> None:
        """Raises ModelError unless the model can recognise from this."""
        if self.network.visual_encoder is None and modality != "a":
            raise ModelError(
                f"model {self.name} only hears", remedy="use modality a or auto, or a model that reads lips"
            )
        if modality not in self.config.modalities:
            raise ModelError(
                f"model {self.name} was not trained for modality {modality}",
                expected=" or ".join(self.config.modalities),
                remedy="use modality auto, or another model",
            )

    def _run_window(self, window: Window) -> Tensor:
        """Log-probabilities [T, V + 1] on the CPU of the frames that this window decides on.

        Sound that is silent throughout counts as absent where lips are seen. Blank is certain on frames that have
        neither sound nor lips within reach.
        """
        lips = presence = mel = None
        seen = np.zeros(0, bool)
        if window.crops is not None and window.present is not None and window.present.any():
            lips, presence = self.lip_tensors([window.crops], [window.present])
            seen = window.present.reshape(-1, WINDOW_FRAME_MS // SLOT_MS).any(axis=1)
        audible = np.zeros(0, bool) if window.samples is None else audible_frames(window.samples, FRAME_SAMPLES)
        if window.samples is not None and (audible.any() or lips is None):
            mel, lengths = self.features([window.samples])
        else:
            assert window.crops is not None
            lengths = torch.tensor([len(window.crops) * SLOT_MS // HOP_MS], device=self.device)
        log_probs, _ = self._run(mel, lengths, lips, presence)
        per_frame = WINDOW_FRAME_MS // self.config.frame_ms
        there = np.zeros(max(len(audible), len(seen)), bool)
        there[: len(audible)] |= audible
        there[: len(seen)] |= seen
        absent_T = torch.from_numpy(~within_reach(there)).repeat_interleave(per_frame)
        # Causal subsampling may give one frame more than there are; it is like the one before.
        absent_T = torch.cat((absent_T, absent_T[-1:]))[: log_probs.shape[1]].to(self.device)
        if absent_T.any():
            nothing_V = torch.full_like(log_probs[0, 0], NOT_HEARD)
            nothing_V[self.network.blank_id] = 0.0
            log_probs = torch.where(absent_T[:, None], nothing_V, log_probs)
        start, end = ((frame - window.first) * per_frame for frame in window.keep)
        if log_probs.shape[1] - end <= 1:  # the file ends here; causal subsampling gives one frame more
            end = log_probs.shape[1]
        return log_probs[0, start:end].cpu()

    @torch.inference_mode()
    def _run(
        self, mel: Tensor | None, lengths: Tensor, lips: Tensor | None, presence: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if mel is not None and mel.shape[-1] == 0:  # less than 10 ms of sound
            return torch.zeros(len(mel), 0, self.network.blank_id + 1, device=self.device), lengths * 0
        with self._precision():
            output = self.network(mel, lengths, lips, presence, attention=self._attention)
        log_probs = output.log_probs
        if self.config.decodes == "sides":
            side = output.audio_log_probs if mel is not None else output.visual_log_probs
            log_probs = log_probs if side is None else side
        return log_probs, output.lengths

    @torch.inference_mode()
    def step(
        self,
        mel: Tensor,
        lips: Tensor | None,
        presence: Tensor | None,
        state: NetworkState,
        attention: AttentionContext,
        *,
        heard: bool = True,
    ) -> NetworkOutput:
        """One chunk of one stream through the network, see `Network.forward`; log_probs is what is to be decoded."""
        lengths = torch.tensor([mel.shape[-1]], device=self.device)
        given = None if heard or self.network.fusion is None else torch.tensor([False], device=self.device)
        with self._precision():
            output = self.network(mel, lengths, lips, presence, state, heard=given, attention=attention)
        if self.config.decodes == "sides" and output.audio_log_probs is not None:
            output = output._replace(log_probs=output.audio_log_probs)
        return output

    def words(self, log_probs_TV: Tensor) -> list[tuple[str, int, int, float]]:
        """The words of log-probabilities [T, V + 1] on the CPU: text, first frame, frame after the last, confidence.

        A word of several units lies from the first to the last, and is as sure as all of them are together.
        """
        units = align_greedy(log_probs_TV, self.network.blank_id)
        groups = self.tokenizer.word_groups([unit.unit for unit in units])
        return [
            (word, units[first].first, units[end - 1].end, math.prod(unit.confidence for unit in units[first:end]))
            for word, first, end in groups
        ]

    def stream(self, **options: Any) -> Session:
        """A live session: `avsr.streaming.Session(self, **options)`, which says what the options are."""
        from avsr.streaming import Session

        return Session(self, **options)

    def _precision(self) -> torch.autocast:
        """What the network is to run under, with its weights packed where they can be."""
        reduced = self.dtype != torch.float32 and not self.network.pack(self.dtype)
        if not reduced:
            self.network.pack()  # once more where something undid it
        return torch.autocast(self.device.type, dtype=self.dtype if reduced else None, enabled=reduced)

    def lip_tensors(
        self, lips: Sequence[NDArray[np.uint8]], presence: Sequence[NDArray[np.bool_]]
    ) -> tuple[Tensor, Tensor]:
        """Crops uint8 [T, 96, 96] and presence bool [T] of each item as the network takes them: [B, T, 1, 88, 88] in
        [0, 1] and bool [B, T]."""
        slots = max(len(crops) for crops in lips)
        padded = np.zeros((len(lips), slots, LIP_INPUT_PX, LIP_INPUT_PX), np.uint8)
        present = np.zeros((len(lips), slots), bool)
        for index, (crops, there) in enumerate(zip(lips, presence, strict=True)):
            if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_PX, CROP_PX):
                raise ValueError(f"lips {index}: got {crops.dtype} {crops.shape}, expected uint8 [T, 96, 96]")
            if len(there) != len(crops):
                raise ValueError(f"presence {index}: got {len(there)} slots, expected {len(crops)}, as many as crops")
            padded[index, : len(crops)] = centre_crop(crops)
            present[index, : len(crops)] = there
        lips_BT1HW = torch.from_numpy(padded).to(self.device)[:, :, None].float() / 255
        return lips_BT1HW, torch.from_numpy(present).to(self.device)

    def _word(
        self,
        word: str,
        first: int,
        end: int,
        confidence: float,
        lips: _LipRecord,
        heard: Sequence[bool],
        *,
        duration_s: float,
    ) -> Word:
        frame_s = self.config.frame_ms / 1000
        faces = lips.between(first, end)
        per_frame = WINDOW_FRAME_MS // self.config.frame_ms
        sound = any(heard[first // per_frame : -(-end // per_frame)])
        return Word(
            word=word,
            start=min(first * frame_s, duration_s),
            end=min(end * frame_s, duration_s),  # the last frame may reach past the end
            confidence=confidence,
            modality=("av" if sound else "v") if faces else "a",
            face=Counter(faces).most_common(1)[0][0] if faces else None,
        )


class _LipRecord:
    """Whose lips were read when: one entry a 40 ms slot of the whole file, small enough to keep; and who was there.

    seen: first and last slot of each face in the picture, read or not.
    """

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, int]] = {}
        self._faces: list[int | None] = []
        self._reasons: Counter[str] = Counter()

    def add(self, window: Window) -> None:
        start, end = (2 * (frame - window.first) for frame in window.keep)
        self._faces.extend(window.faces[start:end])
        self._reasons.update(window.reasons[start:end])

    def see(self, slot: Slot) -> None:
        for face in slot.lips:
            self.seen[face] = (self.seen.get(face, (slot.index, 0))[0], slot.index)

    def who(self) -> str:
        slot_s = SLOT_MS / 1000
        spans = (
            f"{face} ({first * slot_s:.1f}-{(last + 1) * slot_s:.1f} s)" for face, (first, last) in self.seen.items()
        )
        return f"faces {', '.join(spans)}" if self.seen else "no faces"

    @property
    def count(self) -> int:
        return self._reasons["ok"]

    @property
    def coverage(self) -> float:
        return self.count / len(self._faces) if self._faces else 0.0

    def between(self, first_frame: int, end_frame: int) -> list[int]:
        return [face for face in self._faces[2 * first_frame : 2 * end_frame] if face is not None]

    def why_not(self) -> str:
        explained = {
            "no_face": "no face found",
            "pose": "face turned away",
            "low_quality": "face too small",
            "occluded": "mouth covered",
            "late": "no picture",
        }
        reason = self._reasons.most_common(1)[0][0] if self._reasons else "late"
        return explained.get(reason, reason)


def _heard(window: Window) -> list[bool]:
    """Of each frame that the window decides on: whether there is sound within reach."""
    audible = np.zeros(window.keep[1] - window.first, bool)
    if window.samples is not None:
        frames = audible_frames(window.samples, FRAME_SAMPLES)
        audible = np.pad(frames, (0, max(0, len(audible) - len(frames))))
    start, end = (frame - window.first for frame in window.keep)
    return within_reach(audible)[start:end].tolist()


def _segments(words: Iterable[Word]) -> list[Segment]:
    segments: list[list[Word]] = []
    for word in words:
        current = segments[-1] if segments else []
        starts_anew = not current or (
            word.start - current[-1].end >= SEGMENT_PAUSE_S or word.end - current[0].start > MAX_SEGMENT_S
        )
        if starts_anew:
            segments.append([word])
        else:
            current.append(word)
    return [Segment(words=tuple(segment)) for segment in segments]


def _pad(samples: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    arrays = [np.asarray(array) for array in samples]
    for index, array in enumerate(arrays):
        if not np.issubdtype(array.dtype, np.floating):  # integers would be taken for sound 32768 times too loud
            raise ValueError(f"samples {index}: got {array.dtype}, expected float32 in [-1, 1]")
        if array.ndim != 1:
            raise ValueError(f"samples {index}: got shape {array.shape}, expected one dimension, mono at 16 kHz")
        if not np.isfinite(array).all():
            raise ValueError(f"samples {index}: got values that are not finite")
    padded = np.zeros((len(arrays), max((len(array) for array in arrays), default=0)), np.float32)
    for index, array in enumerate(arrays):
        padded[index, : len(array)] = array
    return torch.from_numpy(padded), torch.tensor([len(array) for array in arrays], dtype=torch.int64)
