"""What the models see: log-mel spectra of the sound, lip crops of the picture."""
