"""The parts of `tools/fuzz.py`: hostile inputs of many kinds, run by the real commands in child processes.

mutations.py   changes of bytes, of documents and of texts
containers.py  where the length fields and parts of MP4, RIFF, EBML and Ogg files are
archives.py    hostile tar, zip, pickle and safetensors files
media.py       small media files to begin with
bases.py       working inputs of every kind, before they are changed
cases.py       one changed input: how it is made, written and stored
frames.py      hostile WebSocket and HTTP clients for `avsr serve`
worker.py      the child: runs commands and reports exit code, output, time and memory
runner.py      the parent: starts and stops children, and judges their results
"""
