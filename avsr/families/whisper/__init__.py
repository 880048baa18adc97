"""Whisper models in the form of CTranslate2: open-vocabulary recognition of many languages, from the sound alone."""
