"""Random changes of sound and lips for training. Each takes a random generator, so that its results repeat."""
