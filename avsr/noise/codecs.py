"""Sound through a lossy codec and back, in memory."""

from __future__ import annotations

from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from avsr.grid import SAMPLE_RATE_HZ
from avsr.noise.filters import apply_filter, lowpass_filter

_ENCODERS = {"opus": ("libopus", "s16"), "mp3": ("libmp3lame", "s16p")}
# Less effort than usual: two or three times quicker, and a codec is there to do harm here.
_DECODERS = {"opus": "opus", "mp3": "mp3float"}
_OPTIONS = {"opus": {"compression_level": "0"}, "mp3": {"compression_level": "7"}}


def through_codec(pcm: NDArray[np.float64], codec: Literal["opus", "mp3"], bits_per_second: int) -> NDArray[np.float64]:
    """Samples [S] in 16-bit units after encoding and decoding; the codec's delay is taken out.

    The result depends on the version of the codec and, in single bits, on the processor.
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
    whole = np.pad(np.clip(pcm, -32_768, 32_767), (0, -len(pcm) % block + 2 * block)).astype(np.int16)
    decoded: list[NDArray[np.float64]] = []
    rate = SAMPLE_RATE_HZ

    def decode(packet: av.Packet | None) -> None:
        nonlocal rate
        for frame in decoder.decode(packet):
            rate = frame.sample_rate
            decoded.append(frame.to_ndarray().reshape(-1).astype(np.float64))

    for first in range(0, len(whole), block):
        frame = av.AudioFrame.from_ndarray(whole[None, first : first + block], format=sample_format, layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, first
        for packet in encoder.encode(frame):
            decode(packet)
    for packet in encoder.encode(None):
        decode(packet)
    decode(None)
    samples = np.rint(np.concatenate(decoded) * 32_768)
    if rate == 3 * SAMPLE_RATE_HZ:  # Opus decodes to 48 kHz whatever went in
        samples = apply_filter(samples, lowpass_filter(7800, rate))[::3]
    return np.pad(samples, (0, max(0, len(pcm) - len(samples))))[: len(pcm)]
