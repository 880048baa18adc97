"""Measurements of this machine: speed of transcription, latency of streams."""
