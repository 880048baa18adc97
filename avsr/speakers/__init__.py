"""Who speaks: which mouth goes with the sound."""
