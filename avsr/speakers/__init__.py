"""Who speaks: which mouth goes with the sound, and how far the two are apart in time."""
