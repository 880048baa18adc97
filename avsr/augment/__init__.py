"""Changes to sound and picture while training. Each takes its own random generator, so that results repeat."""
