"""Uses lip crops that another program cut: in a live session, and for log-probabilities.

    python examples/own_lip_crops.py [FILE]

A crop is uint8 [96, 96], grey, with the mouth in its middle, one every 40 ms. Crops of another size or scale than those
that a model was trained on give wrong words. Here the crops come from this package's own face finder, which stands for
the other program.
"""

import sys
from pathlib import Path

import avsr
from avsr.lips.tracker import extract_lips
from avsr.media import read_audio

DEMO = Path(avsr.__file__).parent / "assets/demo.mp4"
SLOT_S = 0.04
SLOT_SAMPLES = 640  # 40 ms at 16 kHz


def main(path: str = str(DEMO)) -> None:
    model = avsr.load("grid-tiny")
    samples, lips = read_audio(path), extract_lips(path)

    # Log-probabilities of whole utterances: [T, V + 1], the blank last. Lists are batches.
    (log_probs,) = model.log_probs([samples], [lips.crops], [lips.present])
    print(f"log-probabilities: {log_probs.shape[0]} frames of {log_probs.shape[1]} units")

    # A live session: each crop with the time at which its picture was taken, None for a picture without lips.
    with model.stream(chunk_ms=320, video=True) as session:
        for slot, (crop, present) in enumerate(zip(lips.crops, lips.present, strict=True)):
            events = session.push_video(crop if present else None, slot * SLOT_S)
            block = samples[slot * SLOT_SAMPLES : (slot + 1) * SLOT_SAMPLES]
            events += session.push_audio(block, slot * SLOT_S)
            for event in events:
                print(f"{event.emitted:6.2f} s  {event.event}: {event.text}")
        for event in session.finish():
            print(f"{event.emitted:6.2f} s  {event.event}: {event.text or event.counters}")


if __name__ == "__main__":
    main(*sys.argv[1:])
