"""Encode sound with a lossy codec and decode it again, in memory."""

from __future__ import annotations

from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from avsr.grid import SAMPLE_RATE_HZ
from avsr.noise.filters import apply_filter, lowpass_filter

_ENCODERS = {"opus": ("libopus", "s16"), "mp3": ("libmp3lame", "s16p")}
_DECODERS = {"opus": "opus", "mp3": "mp3float"}
# Lower effort than the default is two or three times quicker. The loss of quality is welcome: a codec is used here to
# degrade speech.
_OPTIONS = {"opus": {"compression_level": "0"}, "mp3": {"compression_level": "7"}}


def through_codec(pcm: NDArray[np.float64], codec: Literal["opus", "mp3"], bits_per_second: int) -> NDArray[np.float64]:
    """Samples [S] in 16-bit units after encoding and decoding, without the delay of the codec.

    The result depends on the version of the codec library and, in single bits, on the processor.
    """
    name, sample_format = _ENCODERS[codec]
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE_HZ, "mono", sample_format
    encoder.bit_rate, encoder.options, encoder.thread_count = bits_per_second, _OPTIONS[codec], 1
    encoder.open()
    decoder = av.CodecContext.create(_DECODERS[codec], "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.extradata, decoder.thread_count = encoder.extradata, 1
    decoder.sample_rate, decoder.layout = SAMPLE_RATE_HZ, "mono"
    block = encoder.frame_size
    # Encoders take whole blocks. Two more blocks push the last samples through the delay of the codec.
    padded = np.pad(np.clip(pcm, -32_768, 32_767), (0, -len(pcm) % block + 2 * block)).astype(np.int16)
    decoded: list[NDArray[np.float64]] = []
    rate_hz = SAMPLE_RATE_HZ

    def decode(packet: av.Packet | None) -> None:
        nonlocal rate_hz
        for frame in decoder.decode(packet):
            rate_hz = frame.sample_rate
            decoded.append(frame.to_ndarray().reshape(-1).astype(np.float64))

    for first in range(0, len(padded), block):
        frame = av.AudioFrame.from_ndarray(padded[None, first : first + block], format=sample_format, layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, first
        for packet in encoder.encode(frame):
            decode(packet)
    for packet in encoder.encode(None):
        decode(packet)
    decode(None)
    samples = np.rint(np.concatenate(decoded) * 32_768)
    if rate_hz == 3 * SAMPLE_RATE_HZ:  # Opus always decodes to 48 kHz
        samples = apply_filter(samples, lowpass_filter(7800, rate_hz))[::3]
    return np.pad(samples, (0, max(0, len(pcm) - len(samples))))[: len(pcm)]
