"""Peak memory and time of one long recording at the size of FastConformer-L with local attention.

    python benchmarks/one_hour.py
    python benchmarks/one_hour.py --whole

The first command transcribes a file like `avsr transcribe`: in windows, from decoding to words. --whole runs the
network on all samples in one pass, like `Recognizer.log_probs`. Random weights, float32; the sound is noise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import torch

from avsr.decoding.tokenizer import WordTokenizer
from avsr.families.own.config import AudioEncoderConfig, ModelConfig
from avsr.families.own.family import make_model
from avsr.families.own.network import Network
from avsr.nn.conformer_shape import ConformerShape
from avsr.nn.context import AttentionContext
from avsr.recognizer import Recognizer
from avsr.sound.mel_config import MelConfig


def large_model() -> Recognizer:
    """FastConformer-L: 17 layers, width 512, 128 frames (10 s) of attention to either side; 1000 units."""
    encoder = AudioEncoderConfig(
        conformer=ConformerShape(width=512, layers=17, heads=8, kernel=9, conv_norm="batch"),
        subsampling_channels=256,
        attention=AttentionContext(style="local", left=128, right=128),
    )
    config = ModelConfig(
        name="large", vocabulary_size=1000, mel=MelConfig(), audio_encoder=encoder, visual_encoder=None, fusion=None
    )
    torch.manual_seed(1)
    return Recognizer(make_model(Network(config), WordTokenizer([f"w{index}" for index in range(1000)])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--whole", action="store_true", help="in one pass instead of windows")
    arguments = parser.parse_args()
    recognizer = large_model()
    generator = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            for _ in range(arguments.seconds):
                file.writeframes((generator.standard_normal(16_000) * 3000).astype(np.int16).tobytes())
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak; Linux only
        started = time.perf_counter()
        if arguments.whole:
            with wave.open(str(path)) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
            said = f"{len(recognizer.log_probs([samples])[0])} frames"
        else:
            said = f"{len(recognizer.transcribe(path).words)} words"
        taken = time.perf_counter() - started
    lines = Path("/proc/self/status").read_text().splitlines()
    peak_mib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    print(
        f"{arguments.seconds} s of sound {'in one pass' if arguments.whole else 'in windows'}: {taken:.1f} s, {said}, "
        f"peak memory of the whole process {peak_mib:.0f} MiB, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
