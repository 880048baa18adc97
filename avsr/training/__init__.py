"""Training: data, losses, the Lightning module and the run around it."""
