"""Corpora, manifests, noise and batches."""
