"""From log-probabilities to words: units, greedy search, alignment, confidence."""
