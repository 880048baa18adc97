"""From sound to features: log-mel, silence, voice activity."""
