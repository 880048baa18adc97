"""Word error rate of a model on one split of a prepared corpus, by sound, by lips and by both.

    python scripts/measure_wer.py work/grid/manifest.jsonl --split test_seen

Batches of prepared crops and sound go through `Recognizer.log_probs` and the greedy search that `avsr transcribe`
uses. With --noise the sound is mixed with environment noise, babble of the corpus's training voices and coloured
noise at --snr, the same for each run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import avsr
from avsr.decoding.alignment import align_greedy
from avsr.evaluation.statistics import word_error_rate
from avsr.training.config import AugmentConfig, CorpusConfig
from avsr.training.data import Corpus, EvaluationSet, noise_bank


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--model", default="grid-tiny")
    parser.add_argument("--modalities", default="a,v,av")
    parser.add_argument("--noise", type=Path, help="folder of noise recordings")
    parser.add_argument("--snr", type=float, help="dB; without it the sound is clean")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--errors", action="store_true", help="print each utterance with errors")
    arguments = parser.parse_args()
    if (arguments.snr is None) != (arguments.noise is None):
        parser.error("--noise and --snr go together")

    recognizer = avsr.load(arguments.model)
    corpus = Corpus(CorpusConfig(manifest=str(arguments.manifest), split=arguments.split))
    noise = None
    if arguments.noise is not None:
        voices = Corpus(CorpusConfig(manifest=str(arguments.manifest), split="train"))
        noise = noise_bank(AugmentConfig(noise_folder=str(arguments.noise), noise_share=1.0), [voices], seed=1)
    examples = EvaluationSet(corpus, recognizer.tokenizer, noise=noise, snr_db=arguments.snr)
    condition = "clean" if arguments.snr is None else f"{arguments.snr:g} dB"
    for modality in arguments.modalities.split(","):
        references, hypotheses, offsets = [], [], []
        for first in range(0, len(examples), arguments.batch_size):
            batch = [examples[i] for i in range(first, min(first + arguments.batch_size, len(examples)))]
            lips = [e.lips if e.lips is not None else np.zeros((len(e.presence), 88, 88), np.uint8) for e in batch]
            presence = [e.presence if e.lips is not None else np.zeros(len(e.presence), bool) for e in batch]
            samples = None if modality == "v" else [e.samples for e in batch]
            if modality == "a":
                log_probs, lengths = recognizer.log_probs(samples)
            else:
                log_probs, lengths = recognizer.log_probs(samples, lips, presence)
            for index, (example, length) in enumerate(zip(batch, lengths.tolist(), strict=True)):
                units = align_greedy(log_probs[index, :length].cpu(), recognizer.network.blank_id)
                references.append(example.text)
                hypotheses.append(recognizer.tokenizer.decode([unit.unit for unit in units]))
                times = corpus.utterances[first + index].words
                if hypotheses[-1] == references[-1] and times:
                    for unit, (_, start, end) in zip(units, times, strict=True):
                        offsets.append((0.08 * unit.first - start, 0.08 * unit.end - end))
                elif arguments.errors and hypotheses[-1] != references[-1]:
                    print(f"{modality} {references[-1]} | {hypotheses[-1]}")
        rate = word_error_rate(references, hypotheses)
        line = f"{arguments.split} {condition} {modality.upper():2}: WER {rate}"
        line += f", {rate.utterances} clips, {rate.words} words"
        if offsets:
            start_ms, end_ms = 1000 * np.median(np.abs(np.array(offsets)), axis=0)
            line += f"; median error of word starts {start_ms:.0f} ms, ends {end_ms:.0f} ms"
        print(line)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except avsr.AvsrError as error:
        raise SystemExit(f"measure_wer.py: {error}") from None
