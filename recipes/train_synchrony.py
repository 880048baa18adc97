"""Train the synchrony head, which finds the mouth that goes with the sound: avsr/assets/synchrony.

    python recipes/train_synchrony.py work/grid/manifest.jsonl work/corpora/noise/noise_train runs/synchrony

For a stretch of sound it learns to choose the right mouth at the right moment among the mouths of other clips, other
moments and mouths at rest; and the same with sound and mouth exchanged. It trains on the training split, and is judged
on the development split and on the speakers of `train_other`. Writes OUT/model.safetensors (16 bit). Everything is held
in memory, 300 MB for 40 minutes of clips. Takes 10 minutes on one core; the same seed gives the same weights on the
same machine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import avsr
from avsr.augment.audio import colour_channel, mix_at_snr
from avsr.datasets.manifest import load_lips, load_samples, read_manifest
from avsr.grid import SLOT_SAMPLES
from avsr.noise.library import NoiseBank, read_noise_folder
from avsr.speakers.synchrony import MOUTH_PX, SLOT_MEL_FRAMES, SynchronyHead

SLOTS = 75  # of a clip: 3 s
HALF_PX = 48  # lip crops are kept at half their resolution
MAX_LAG_SLOTS = 12
BATCH = 16
WINDOWS_PER_BATCH = 6


class Clips:
    """Clips of one split, cut or filled up to 3 s: crops uint8 [N, 75, 48, 48], presence [N, 75], samples [N, S]."""

    def __init__(self, manifest: Path, split: str) -> None:
        utterances = [u for u in read_manifest(manifest) if u.split == split and u.audio and u.video]
        if not utterances:
            raise avsr.DataError(f"{manifest}: no clips with sound and lips", expected=f"some of split {split}")
        crops, present, samples = [], [], []
        for utterance in utterances:
            clip, there = load_lips(utterance, manifest.parent)
            half = clip.reshape(len(clip), HALF_PX, 2, HALF_PX, 2).mean((2, 4)).round().astype(np.uint8)
            crops.append(_fit(half, SLOTS))
            present.append(_fit(there, SLOTS))
            samples.append(_fit(load_samples(utterance, manifest.parent), SLOTS * SLOT_SAMPLES))
        self.crops = torch.from_numpy(np.stack(crops))
        self.present = torch.from_numpy(np.stack(present))
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)


def _fit(values: NDArray, count: int) -> NDArray:
    missing = max(0, count - len(values))
    return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))[:count]


def augment_lips(crops_BTHW: Tensor, random: torch.Generator) -> Tensor:
    """Another camera and another tracker: turned, scaled, mirrored, shifted, trembling, blurred, slower, noisy."""
    batch, slots = crops_BTHW.shape[:2]
    pixels = crops_BTHW.float()

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*(shape or (batch,)), generator=random)

    angle, aspect = uniform(-0.15, 0.15), uniform(0.9, 1.1)
    scale = uniform(0.8, 1.2) * (MOUTH_PX / HALF_PX)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    tremble = torch.randn(batch, slots, 2, generator=random) * uniform(0, 0.006, batch, 1, 1)
    matrix = torch.zeros(batch, slots, 2, 3)
    matrix[:, :, 0, 0] = (scale * aspect * angle.cos() * mirror)[:, None]
    matrix[:, :, 0, 1] = (-scale * angle.sin())[:, None]
    matrix[:, :, 1, 0] = (scale * angle.sin() * mirror)[:, None]
    matrix[:, :, 1, 1] = (scale / aspect * angle.cos())[:, None]
    matrix[:, :, :, 2] = uniform(-0.12, 0.12, batch, 1, 2) + tremble
    grid = F.affine_grid(matrix.view(-1, 2, 3), [batch * slots, 1, MOUTH_PX, MOUTH_PX], align_corners=False)
    pixels = F.grid_sample(pixels.view(-1, 1, HALF_PX, HALF_PX), grid, align_corners=False, padding_mode="border")
    pixels = pixels.view(batch, slots, MOUTH_PX, MOUTH_PX)
    blurs, gammas, slows = uniform(0, 1) < 0.3, uniform(0, 1) < 0.3, uniform(0, 1) < 0.15
    exponents = uniform(0.6, 1.6)
    for index in range(batch):
        if blurs[index]:
            padded = F.pad(pixels[index][:, None], (1, 1, 1, 1), mode="replicate")
            pixels[index] = F.avg_pool2d(padded, 3, 1)[:, 0]
        if gammas[index]:
            pixels[index] = 255 * (pixels[index] / 255).clamp(1e-3) ** exponents[index]
        if slows[index]:  # half the pictures a second
            pixels[index] = pixels[index][torch.arange(slots) // 2 * 2]
    return pixels + torch.randn(pixels.shape, generator=random) * uniform(0, 4, batch, 1, 1, 1)


def augment_sound(samples: NDArray[np.float32], bank: NoiseBank, random: np.random.Generator) -> NDArray[np.float32]:
    """Another room and microphone: coloured, noisy, or silent at one end."""
    if random.random() < 0.5:
        samples = colour_channel(samples, 10.0, random)
    if random.random() < 0.6:
        noise, _ = bank.draw(len(samples), random)
        samples = mix_at_snr(samples, noise, random.uniform(-3, 20))
    if random.random() < 0.2:
        samples = samples.copy()
        edge = int(random.integers(0, SLOT_SAMPLES * 12))
        if random.random() < 0.5:
            samples[:edge] = 0
        else:
            samples[len(samples) - edge :] = 0
    return samples


def other_throat(mel_BMF: Tensor, random: torch.Generator) -> Tensor:
    """The mel axis stretched or squeezed by up to a fifth: longer and shorter vocal tracts."""
    batch, filters, frames = mel_BMF.shape
    factor = 0.82 + 0.4 * torch.rand(batch, 1, generator=random)
    position = (torch.arange(filters)[None] * factor).clamp(0, filters - 1)
    low = position.floor().long().clamp(max=filters - 2)
    weight = (position - low)[:, :, None]
    index = low[:, :, None].expand(batch, filters, frames)
    return mel_BMF.gather(1, index) * (1 - weight) + mel_BMF.gather(1, index + 1) * weight


def contrastive_loss(lips_BTD: Tensor, sound_BTD: Tensor, rest_BD: Tensor, random: np.random.Generator) -> Tensor:
    """Cross-entropy of the choice of the mouth for a random stretch of sound of 0.24 to 2 s, and the other way round.

    lips_BTD, sound_BTD: embeddings; the rows of a clip belong together.
    rest_BD: embeddings of mouths at rest.
    random: draws the stretch.
    """
    batch, slots, _ = lips_BTD.shape
    count = int(random.integers(6, 50))
    first = int(random.integers(MAX_LAG_SLOTS, slots - count - MAX_LAG_SLOTS + 1))
    lips, sound = lips_BTD[:, first : first + count], sound_BTD[:, first : first + count]
    lags = range(-MAX_LAG_SLOTS, MAX_LAG_SLOTS + 1)
    moved_lips = [(lips_BTD[:, first + lag : first + lag + count] * sound).sum((1, 2)) for lag in lags]
    moved_sound = [(sound_BTD[:, first + lag : first + lag + count] * lips).sum((1, 2)) for lag in lags]
    others = torch.einsum("ctd,btd->bc", lips, sound).masked_fill(torch.eye(batch, dtype=torch.bool), -1e9)
    still = torch.einsum("cd,btd->bc", rest_BD, sound)
    of_sound = torch.cat([torch.stack(moved_lips, 1), others, still], dim=1)
    of_lips = torch.cat([torch.stack(moved_sound, 1), others.t()], dim=1)
    truth = torch.full((batch,), MAX_LAG_SLOTS)
    return (F.cross_entropy(of_sound, truth) + F.cross_entropy(of_lips, truth)) / 2


@torch.no_grad()
def judge(head: SynchronyHead, clips: Clips) -> str:
    """How often, in a clip's middle second or half of it, the right mouth has more evidence than another clip's."""
    head.eval()
    pixels = clips.crops[:, :, 8:40, 8:40].float()
    lips = head.embed_moving(head.moving_pixels(pixels, clips.present), clips.present)
    sound = head.embed_sound(torch.from_numpy(np.stack(clips.samples)))
    shares = []
    for count in (12, 25):
        evidence = torch.einsum("ctd,btd->bc", lips[:, 20 : 20 + count], sound[:, 20 : 20 + count])
        wins = (evidence.diagonal()[:, None] > evidence).float().sum() / (len(clips) * (len(clips) - 1))
        shares.append(f"{wins:.3f} in {count * 40} ms")
    head.train()
    return ", ".join(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="of the prepared GRID corpus")
    parser.add_argument("noise", type=Path, help="folder of noise recordings to train with")
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)  # weights and dropout
    random = np.random.default_rng(arguments.seed)
    torch_random = torch.Generator().manual_seed(arguments.seed)
    clips, dev, others = (Clips(arguments.manifest, split) for split in ("train", "dev", "train_other"))
    bank = NoiseBank(list(read_noise_folder(arguments.noise).values()), clips.samples)
    head = SynchronyHead()
    steps = arguments.epochs * (len(clips) // BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    print(f"{len(clips)} clips, {sum(p.numel() for p in head.parameters())} parameters, seed {arguments.seed}")
    started = time.perf_counter()
    for epoch in range(arguments.epochs):
        order = random.permutation(len(clips))
        losses = []
        for position in range(0, len(clips) - BATCH + 1, BATCH):
            batch = order[position : position + BATCH]
            pixels = augment_lips(clips.crops[batch], torch_random)
            present = clips.present[batch]
            samples = [augment_sound(clips.samples[index], bank, random) for index in batch]
            mel = other_throat(head.log_mel(torch.from_numpy(np.stack(samples))), torch_random)
            first = int(random.integers(0, 35))
            end = int(random.integers(first + 25, SLOTS + 1))
            basis = torch.zeros(BATCH, SLOTS, dtype=torch.bool)
            basis[:, first:end] = True  # what a stretch of 1 s or more around would be seen relative to
            moving = head.moving_pixels(pixels, basis & present)
            lips = head.embed_moving(moving, present)
            sound = head.embed_mel(mel, basis.repeat_interleave(SLOT_MEL_FRAMES, dim=1))
            # At rest for a while, in any position, or all the time.
            moment = torch.from_numpy(random.integers(0, SLOTS, BATCH))
            still = moving[torch.arange(BATCH), moment][:, None].expand(-1, 5, -1, -1) * float(random.random() < 0.5)
            still = still + 0.03 * torch.randn(still.shape, generator=torch_random)
            rest = head.embed_moving(still, torch.ones(BATCH, 5, dtype=torch.bool))[:, 2]
            loss = torch.stack([contrastive_loss(lips, sound, rest, random) for _ in range(WINDOWS_PER_BATCH)]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(
            f"epoch {epoch + 1}: loss {np.mean(losses):.3f}; right mouth: dev {judge(head, dev)}; "
            f"train_other {judge(head, others)}; {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    arguments.output.mkdir(parents=True, exist_ok=True)
    target = arguments.output / "model.safetensors"
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in head.state_dict().items()
    }
    safetensors.torch.save_file(weights, target, metadata={"format": "pt"})
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    try:
        main()
    except avsr.AvsrError as error:
        raise SystemExit(f"train_synchrony.py: {error}") from None
