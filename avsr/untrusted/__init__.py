"""Reads files of strangers: of models, and lists. Every family reads its files through here.

    values.py       a value of a file as a short text for an error
    files.py        a file that is opened once, must be a regular file, and has a largest size
    settings.py     YAML and JSON as plain values
    archive.py      the members of a tar
    lines.py        lists, manifests and noise plans
    pickles.py      the pickle of `torch.save`, without Python's or torch's unpickler
    torch_file.py   the tensors of a file of `torch.save`
    safetensors.py  the tensors of a safetensors file, its header first
    weights.py      weights against the names, shapes and kinds of numbers of the network that takes them
    finite.py       whether numbers in a file are finite

Media files have `avsr.media` instead. docs/security.md lists all limits and their reasons.
"""
