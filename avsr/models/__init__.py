"""The recogniser: configuration, encoders, fusion, output layer, and the path from a file to a transcript."""
