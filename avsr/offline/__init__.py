"""From a whole file to a transcript, and to a diagnosis."""
