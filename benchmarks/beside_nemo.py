"""Time and memory of our audio encoder and of NeMo's, with the same weights, on the same input, in one run.

    python3 -m venv work/nemo && work/nemo/bin/pip install "nemo_toolkit[asr]==3.0.0" torch==2.11.0 torchaudio==2.11.0
    python benchmarks/beside_nemo.py --nemo work/nemo/bin/python

NeMo needs an environment of its own; nothing else here uses it. Both sides have the random weights of one `.nemo`
archive at the size of FastConformer-L (17 layers, width 512), float32, batch of one. They take turns pass by pass, so
that other load slows both alike. "NeMo, ms" and "avsr, ms" are medians, "ratio" is the median over the turns of NeMo's
time by ours. "MiB" is the peak memory of a side's process minus its memory before the first pass. "difference" is the
largest difference between the outputs, which have values of about 1.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import math
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

N_MELS = 80
CACHE_FRAMES = 70


class Case(NamedTuple):
    """One row of the table."""

    model: str
    """The attention: "offline", "local" or "streaming"."""

    seconds: float
    """Duration of the sound of a pass."""

    right: int | None = None
    """Look-ahead of a streaming step in frames; None for a pass over a whole recording."""

    @property
    def title(self) -> str:
        """The name of the row."""
        if self.right is not None:
            return f"step [{CACHE_FRAMES}, {self.right}], {80 * (self.right + 1)} ms"
        attention = {"offline": "full", "local": "local [128, 128]", "streaming": f"chunked [{CACHE_FRAMES}, 13]"}
        return f"{self.seconds:g} s, {attention[self.model]}"


CASES = [
    Case("offline", 10),
    Case("offline", 30),
    Case("offline", 120),
    Case("local", 30),
    Case("local", 120),
    Case("local", 600),
    Case("streaming", 30),
    *(Case("streaming", 0.08 * (right + 1), right) for right in (13, 6, 1, 0)),
]


def settings(model: str, width: int, layers: int) -> dict[str, Any]:
    """The configuration of the archive."""
    encoder: dict[str, Any] = {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": N_MELS,
        "n_layers": layers,
        "d_model": width,
        "n_heads": 8,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 256,
        "conv_kernel_size": 9,
        "dropout": 0.0,
        "dropout_pre_encoder": 0.0,
        "dropout_att": 0.0,
    }
    if model == "local":
        encoder |= {"self_attention_model": "rel_pos_local_attn", "att_context_size": [128, 128]}
    if model == "streaming":
        encoder |= {
            "causal_downsampling": True,
            "att_context_style": "chunked_limited",
            "att_context_size": [[CACHE_FRAMES, right] for right in (13, 6, 1, 0)],
            "conv_context_size": "causal",
            "conv_norm_type": "layer_norm",
        }
    return {
        "sample_rate": 16000,
        "target": "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE",
        "tokenizer": {"type": "bpe", "model_path": f"nemo:{'0' * 32}_tokenizer.model"},
        "preprocessor": {"window_size": 0.025, "features": N_MELS, "normalize": "per_feature", "dither": 0.0},
        "encoder": encoder,
        "decoder": {"feat_in": width, "num_classes": 40},
    }


def write_archive(path: Path, model: str, width: int, layers: int, weights: Path) -> None:
    """Write the `.nemo` file: configuration, the weights that NeMo drew, and a tokenizer, which the format requires."""
    import sentencepiece
    import yaml

    units = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quiet teacher follows the river to the harbour and paints a boat in the garden"]),
        model_writer=units,
        vocab_size=40,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("model_config.yaml", yaml.safe_dump(settings(model, width, layers)).encode()),
            (f"{'0' * 32}_tokenizer.model", units.getvalue()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        tar.add(weights, "model_weights.ckpt")


# --- one side, in a process of its own: a line of stdin is a request, a line of stdout its answer ---


def nemo_passes(folder: Path, case: Case, width: int, layers: int) -> Callable[[Any], Any]:
    import torch
    from nemo.collections.asr.modules import ConformerEncoder

    torch.manual_seed(1)
    options = settings(case.model, width, layers)["encoder"]
    del options["_target_"]
    encoder = ConformerEncoder(**options).eval()
    weights = folder / f"{case.model}.ckpt"
    if not weights.exists():
        state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
        state["decoder.decoder_layers.0.weight"] = torch.randn(41, width, 1)
        state["decoder.decoder_layers.0.bias"] = torch.zeros(41)
        torch.save(state, weights)
    if case.right is None:

        def whole(mel: Any) -> Any:
            return encoder(audio_signal=mel, length=torch.tensor([mel.shape[2]]))[0].transpose(1, 2)

        return whole
    right = case.right
    encoder.set_default_att_context_size([CACHE_FRAMES, right])
    encoder.setup_streaming_params()
    caches = list(encoder.get_initial_cache_state(batch_size=1))
    past: Any = None

    def step(mel: Any) -> Any:
        nonlocal past
        is_first = past is None
        if is_first:  # the first chunk has no past, and one mel frame more than whole encoder frames
            mel = mel[:, :, : 8 * right + 1]
            past = mel[:, :, :0]
        chunk = torch.cat((past, mel), dim=2)
        past = torch.nn.functional.pad(chunk, (9, 0))[:, :, -9:]
        out, _, *caches[:] = encoder.cache_aware_stream_step(
            processed_signal=chunk,
            processed_signal_length=torch.tensor([chunk.shape[2]]),
            cache_last_channel=caches[0],
            cache_last_time=caches[1],
            cache_last_channel_len=caches[2],
            keep_all_outputs=False,
            drop_extra_pre_encoded=0 if is_first else 2,
        )
        return out.transpose(1, 2)

    return step


def our_passes(folder: Path, case: Case, width: int, layers: int, half: bool) -> Callable[[Any], Any]:
    import torch

    import avsr
    from avsr.nn.context import AttentionContext

    archive = folder / f"{case.model}.nemo"
    if not archive.exists():
        write_archive(archive, case.model, width, layers, folder / f"{case.model}.ckpt")
    encoder = avsr.load(archive, device="cpu", dtype="bfloat16" if half else "float32").model.network.audio_encoder
    if case.right is None:
        return lambda mel: encoder(mel, torch.tensor([mel.shape[2]]))[0]
    right = case.right
    context = AttentionContext(style="chunked", left=CACHE_FRAMES, right=right)
    state = encoder.initial_state(1, torch.device("cpu"), torch.float32, context)

    def step(mel: Any) -> Any:
        nonlocal state
        if state.subsampling.past[0].shape[2] == 2:  # the first chunk
            mel = mel[:, :, : 8 * right + 1]
        out, _, state = encoder(mel, torch.tensor([mel.shape[2]]), state, context)
        return out

    return step


def resident_kib(field: str) -> int:
    """VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise OSError(f"no {field}: this benchmark measures memory on Linux only")


def serve(side: str, folder: Path, case: Case, width: int, layers: int, threads: int, half: bool) -> None:
    """Run one pass for each line of stdin until it ends; answer with its time and the peak memory.

    After a line "save" the output is written to a file, too.
    """
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        if side == "nemo":
            run = nemo_passes(folder, case, width, layers)
        else:
            run = our_passes(folder, case, width, layers, half)
        frames = round(100 * case.seconds)
        generator = torch.Generator().manual_seed(2)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before_kib = resident_kib("VmRSS")
        print("ready", flush=True)
        for line in sys.stdin:
            mel = torch.randn(1, N_MELS, frames, generator=generator)
            started = time.perf_counter()
            out = run(mel)
            taken = time.perf_counter() - started
            if line.strip() == "save":
                torch.save(out.clone(), folder / f"{side}.out")
            print(json.dumps({"seconds": taken, "mib": (resident_kib("VmHWM") - before_kib) / 1024}), flush=True)


class Side:
    """The process of one side, seen from the process that compares."""

    def __init__(self, python: str, side: str, folder: Path, index: int, options: argparse.Namespace) -> None:
        command = [python, __file__, "--serve", side, str(folder), str(index)]
        command += ["--width", str(options.width), "--layers", str(options.layers), "--threads", str(options.threads)]
        command += ["--bf16"] * options.bf16
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._expect("ready")

    def _line(self) -> str:
        assert self._process.stdout is not None
        while True:
            line = self._process.stdout.readline()
            if not line:
                assert self._process.stderr is not None
                sys.exit(self._process.stderr.read())
            if line.startswith(("ready", "{")):  # NeMo prints other lines
                return line.strip()

    def _expect(self, wanted: str) -> None:
        if self._line() != wanted:
            sys.exit("a side of the benchmark answered out of turn")

    def run(self, request: str = "run") -> dict[str, float]:
        time.sleep(0.02)  # after a pass, the threads of the other side keep spinning for a moment
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._line()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(index: int, folder: Path, options: argparse.Namespace) -> str:
    import torch

    case = CASES[index]
    nemo = Side(options.nemo, "nemo", folder, index, options)
    ours = Side(sys.executable, "ours", folder, index, options)
    nemo.run(), ours.run()
    warm = math.ceil(CACHE_FRAMES / (case.right + 1)) if case.right is not None else 1  # until the cache is full
    for _ in range(warm):
        nemo.run(), ours.run()
    turns = options.runs * (5 if case.right is not None else 1)
    times = []
    for _ in range(turns):
        times.append((nemo.run()["seconds"], ours.run()["seconds"]))
    nemo_mib, our_mib = nemo.run("save")["mib"], ours.run("save")["mib"]
    nemo.close()
    ours.close()
    first, second = torch.load(folder / "nemo.out"), torch.load(folder / "ours.out")
    difference = float((first - second[:, : first.shape[1]]).abs().max())
    nemo_s, our_s = (statistics.median(t[side] for t in times) for side in (0, 1))
    ratio = statistics.median(t[0] / t[1] for t in times)
    return (
        f"| {case.title} | {1000 * nemo_s:.1f} | {1000 * our_s:.1f} | {ratio:.2f} | {nemo_mib:.0f} | {our_mib:.0f} "
        f"| {difference:.1e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nemo", help="the Python of the environment that has NeMo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7, help="turns a case; five times as many for streaming steps")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=17)
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))), help="by number, from 0")
    parser.add_argument("--bf16", action="store_true", help="let avsr multiply in bfloat16; NeMo stays in float32")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        side, folder, index = options.serve
        serve(side, Path(folder), CASES[int(index)], options.width, options.layers, options.threads, options.bf16)
        return
    if not options.nemo:
        parser.error("--nemo: name the Python of an environment that has NeMo; how to make one is said above")
    ours = "avsr in bfloat16" if options.bf16 else "float32"
    print(f"width {options.width}, {options.layers} layers, {options.threads} threads, {ours}, batch of one\n")
    print("| pass | NeMo, ms | avsr, ms | ratio | NeMo, MiB | avsr, MiB | difference |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for index in options.cases:
            print(compare(index, Path(folder), options), flush=True)


if __name__ == "__main__":
    main()
