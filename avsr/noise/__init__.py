"""Noise that others can repeat: mixing at an SNR, effects, recordings, plans, protocols."""
