"""How good a recogniser is, with how much certainty."""
