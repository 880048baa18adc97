"""Measurements of speed and latency on this machine: of each step of a transcription, and of live sessions."""
