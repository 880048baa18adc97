"""Word error rates of a training run, for people."""

from __future__ import annotations


def describe(figures: dict[str, float]) -> str:
    """The word error rates among Lightning's metrics as one phrase; empty without any."""
    names = {"dev/wer_a": "A", "dev/wer_v": "V", "dev/wer_av": "AV"}
    names |= {f"{name}_noisy": f"{short} at 0 dB" for name, short in names.items()}
    phrases = [f"{names[name]} {value:.1f} %" for name, value in sorted(figures.items()) if name in names]
    return "dev WER " + ", ".join(phrases) if phrases else ""
