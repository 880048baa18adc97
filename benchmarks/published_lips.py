"""Time and memory of published lip readers at full size, with random weights.

    python benchmarks/published_lips.py --threads 2
    python benchmarks/published_lips.py --threads 2 --video CLIP ... --seconds 10
    python benchmarks/published_lips.py --threads 2 --video CLIP ... --seconds 600 --beam 5

The model has the sizes of auto_avsr's lip readers: 768 wide, 12 layers of encoder and 6 of decoder, 5049 units, 1 GB of
weights. It is written to a temporary folder as a `.pth` file and opened like any other. Times are medians, in one
process. Without --video: how long the file takes to open; front end, encoder and search of `--frames` pictures; and the
search by part, in milliseconds a step. "product" is the time of the decoder's matrix products alone: on a busy machine
only the ratio to it means anything.

With --video the clips, joined again and again, become a video of so many seconds, which `transcribe` reads from lips.

A random decoder ends no text, and random rows of the CTC head are never sure. So the search stops after 3 units a
second of speech, as texts do, and the CTC rows are made: sure blanks, and a sure unit in every eighth frame.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import avsr
from avsr.arrays import LogProbs
from avsr.decoding.ctc_prefix import CTCPrefixScorer
from avsr.decoding.joint import PRE_BEAM, Found, JointSettings, beam_search
from avsr.decoding.scorers import Part, Scorer
from avsr.decoding.search import Search
from avsr.families.auto_avsr.config import DecoderShape, EncoderShape, PublishedConfig
from avsr.families.auto_avsr.layouts import source_name
from avsr.families.auto_avsr.network import PublishedNetwork
from avsr.families.auto_avsr.weights import open_weights
from avsr.grid import LIP_INPUT_PX
from avsr.nn.packing import Linear

UNITS_A_SECOND = 3
SHAPE = EncoderShape(width=768, heads=12, hidden=3072, layers=12, kernel=31, macaron=True)
CONFIG = PublishedConfig(
    code="auto_avsr",
    layout="main",
    vocabulary=5049,
    lips=SHAPE,
    sound=None,
    decoder=DecoderShape(width=768, heads=12, hidden=3072, layers=6),
)


def write_model(folder: Path) -> Path:
    """A file of random weights by the published names, and its list of units."""
    torch.manual_seed(0)
    weights = {}
    for name, tensor in PublishedNetwork(CONFIG).state_dict().items():
        theirs = source_name(name, CONFIG)
        if theirs.endswith("frontend3D.0.weight"):
            tensor = tensor[:, None]
        if "pointwise_cov" in theirs and theirs.endswith("weight"):
            tensor = tensor[..., None]
        weights[theirs] = tensor
    path = folder / "vsr_random.pth"
    torch.save(weights, path)
    units = "".join(f"\u2581U{number} {number}\n" for number in range(1, CONFIG.vocabulary - 1))
    (folder / "unigram5000_units.txt").write_text(units)
    return path


def ctc_rows(frames: int, seed: int = 0) -> LogProbs:
    """Log-probabilities [T, V] as CTC networks give them: sure blanks, and a sure unit in every eighth frame."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(frames, CONFIG.vocabulary)).astype(np.float32) * 2
    logits[:, 0] += 15
    spoken = range(min(4, frames - 1), frames, 8)
    logits[spoken, 0] -= 15
    logits[spoken, rng.integers(1, CONFIG.vocabulary - 1, len(spoken))] += 15
    rows_TV: LogProbs = torch.from_numpy(logits).log_softmax(dim=-1).numpy()
    return rows_TV


class Timed:
    """A scorer that notes how long its calls take."""

    def __init__(self, scorer: Scorer[Any]) -> None:
        self._scorer = scorer
        self.seconds = 0.0

    def initial_state(self, batch: int) -> Any:
        return self._timed(self._scorer.initial_state, batch)

    def score(self, last_B: Any, state: Any) -> Any:
        return self._timed(self._scorer.score, last_B, state)

    def select(self, state: Any, kept_B: Any) -> Any:
        return self._timed(self._scorer.select, state, kept_B)

    def _timed(self, function: Any, *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = function(*arguments)
        self.seconds += time.perf_counter() - begin
        return result


def stopped_search(decoder: Scorer[Any], rows_TV: LogProbs, beam: int) -> tuple[Found, dict[str, float]]:
    """A search that ends when a text would, and milliseconds a step by part."""
    steps = max(1, len(rows_TV) * UNITS_A_SECOND // 25)
    timed = {"decoder": Timed(decoder), "ctc": Timed(CTCPrefixScorer(rows_TV, 0, CONFIG.vocabulary - 1))}
    parts = [Part("decoder", timed["decoder"], 0.9), Part("ctc", timed["ctc"], 0.1)]
    begin = time.perf_counter()
    found = beam_search(parts, CONFIG.vocabulary - 1, steps, JointSettings(beam, best=1), int(PRE_BEAM * beam))
    whole = time.perf_counter() - begin
    seconds = {name: scorer.seconds for name, scorer in timed.items()}
    seconds = {**seconds, "rest": whole - sum(seconds.values()), "whole": whole}
    return found, {name: value / found.steps * 1000 for name, value in seconds.items()}


def plain_front(resnet: Any, video_THW: torch.Tensor) -> torch.Tensor:
    """The front end as the authors compute it: a convolution over pictures and time, nothing folded or packed."""
    stem = torch.nn.functional.conv3d(
        video_THW[None, None], resnet.conv1.weight[:, None], stride=(1, 2, 2), padding=(2, 3, 3)
    )
    x_TCHW = resnet.relu(resnet.bn1(stem[0].transpose(0, 1)))
    x_TCHW = torch.nn.functional.max_pool2d(x_TCHW, 3, stride=2, padding=1)
    for number in range(1, 5):
        x_TCHW = resnet.get_submodule(f"layer{number}")(x_TCHW)
    return x_TCHW.mean(dim=(2, 3))


def product_ms(network: PublishedNetwork, beam: int) -> float:
    """The matrix products of one step of the decoder alone."""
    layers = [
        module
        for name, module in network.decoder.named_modules()
        if isinstance(module, Linear) and "src_attn.linear_k" not in name and "src_attn.linear_v" not in name
    ]
    inputs = [torch.randn(beam, layer.in_features) for layer in layers]
    return 1000 * seconds_of(lambda: [layer(x) for layer, x in zip(layers, inputs, strict=True)])


def seconds_of(compute: Callable[[], object], rounds: int = 5) -> float:
    """The median time of a computation, after one that does not count."""
    compute()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        compute()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure_parts(path: Path, frames: int, beam: int) -> None:
    begin = time.perf_counter()
    network = open_weights(path).network
    print(f"opened in {time.perf_counter() - begin:.2f} s; {megabytes():.0f} MB in memory at most so far")
    branch: Any = network.encoder.lips_branch
    video_THW = torch.randn(frames, LIP_INPUT_PX, LIP_INPUT_PX)
    with torch.inference_mode():
        features = branch.front(video_THW)
        front_s = seconds_of(lambda: branch.front(video_THW))
        encoder_s = seconds_of(lambda: branch.encoder(branch.embed(features)[None]))
        memory_TD = branch(video_THW)
        plain: Any = PublishedNetwork(CONFIG).eval().encoder.lips_branch
        plain_front_s = seconds_of(lambda: plain_front(plain.front.resnet, video_THW))
        plain_encoder_s = seconds_of(lambda: plain.encoder(plain.embed(features)[None]))
        layer, rows = torch.nn.Linear(768, 3072), torch.randn(frames, 768)
        rate = 2 * frames * 768 * 3072 / seconds_of(lambda: layer(rows), 50) / 1e9
        print(
            f"{frames} frames: front end {front_s:.3f} s, encoder {encoder_s:.3f} s; plain product {rate:.0f} GFLOP/s"
        )
        ratio = (plain_front_s + plain_encoder_s) / (front_s + encoder_s)
        print(f"as plain modules of torch: {plain_front_s:.3f} s, {plain_encoder_s:.3f} s: {ratio:.2f} times as long")
        rows_TV = ctc_rows(frames)
        stopped_search(network.decoder.scorer(memory_TD, "all"), rows_TV, beam)
        found = [stopped_search(network.decoder.scorer(memory_TD, "all"), rows_TV, beam) for _ in range(5)]
        product = product_ms(network, beam)
    print(f"search of {found[0][0].steps} steps, beam {beam}, milliseconds a step:")
    for name in found[0][1]:
        print(f"{name:>8} {statistics.median(times[name] for _, times in found):8.1f}")
    print(f" product {product:8.1f}")


def measure_video(path: Path, clips: Sequence[Path], seconds: float, beam: int, folder: Path) -> None:
    """Recognise a long video by the lips alone, as a user would."""
    video = folder / "long.mp4"
    join(clips, seconds, video)
    begin = time.perf_counter()
    model = avsr.load(path)
    print(f"opened in {time.perf_counter() - begin:.2f} s")
    engine: Any = model.model.engine

    def search(memory_TD: Any, modality: Any, ctc_TV: Any, settings: JointSettings) -> Found:
        scorer = engine.network.decoder.scorer(memory_TD, engine.network.head(modality))
        return stopped_search(scorer, ctc_rows(len(ctc_TV)), settings.beam)[0]

    engine.search = search
    begin = time.perf_counter()
    transcript = model.transcribe(video, modality="v", search=Search(beam=beam))
    took = time.perf_counter() - begin
    print(
        f"{seconds:.0f} s of video, beam {beam}: {took:.1f} s, {len(transcript.words)} words, "
        f"{megabytes():.0f} MB at most"
    )


def join(clips: Sequence[Path], seconds: float, target: Path) -> None:
    """A silent video of the pictures of clips, one after the other, at 25 a second."""
    import av

    with av.open(str(target), "w") as out:
        stream: Any = None
        count = 0
        while count < seconds * 25:
            with av.open(str(clips[count // 75 % len(clips)])) as source:
                for frame in source.decode(video=0):
                    if count >= seconds * 25:  # clips rarely end there
                        break
                    if stream is None:
                        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
                        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
                    picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
                    picture.pts = count
                    out.mux(stream.encode(picture))
                    count += 1
        out.mux(stream.encode())


def megabytes() -> float:
    """The most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=250, help="pictures, 25 a second")
    parser.add_argument("--beam", type=int, default=40)
    parser.add_argument("--video", nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--model", type=Path, help="a folder for the model file, which is made if it is not there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.model or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "vsr_random.pth"
        if not path.exists():
            path = write_model(folder)
            if arguments.model is not None:
                print(f"wrote {path}: run the same command again", file=sys.stderr)
                return 0
        if arguments.video:
            measure_video(path, arguments.video, arguments.seconds, arguments.beam, Path(temporary))
        else:
            measure_parts(path, arguments.frames, arguments.beam)
    return 0


if __name__ == "__main__":
    sys.exit(main())
