"""Reads the files of a model that come from a stranger. Every family reads its files through here.

    values.py       a value of a file as a short text for an error
    files.py        a file that is opened once, must be a regular file, and has a largest size
    settings.py     YAML and JSON as plain values
    archive.py      the members of a tar
    pickles.py      looks through a pickle without running it
    torch_file.py   the tensors of a file of `torch.save`, without running its pickle

Media files have `avsr.media` instead. docs/security.md lists all limits and their reasons.
"""
