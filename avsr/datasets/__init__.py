"""Corpora for training and evaluation: readers, preparation, the manifest."""
