# make demo    transcribe the demo clip, offline, and show what comes out
# make demo-open FILE=talk.mp4    install Whisper base, if it is missing, and transcribe FILE with it
# make test    run the tests
# make lint    check style and types
# make docs    build the documentation with the API reference into site/
#
# Each installs avsr into .venv first, unless that is done: with the versions and hashes in requirements.txt. Other settings:
#   make PYTHON=/path/to/python3.11   make VENV=/path/to/environment   make demo-open OPEN_MODEL=whisper-small FILE=talk.mp4

VENV ?= .venv
OPEN_MODEL ?= whisper-base
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3 python; do \
	"$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1 \
	&& echo "$$python" && break; done)

# An environment whose Python has gone, as after an upgrade of the system, is none.
ifneq ($(wildcard $(STAMP)),)
$(shell $(VENV)/bin/python -c '' >/dev/null 2>&1 || rm -f $(STAMP))
endif

.PHONY: help demo demo-open test lint docs
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make [a-z].*\)/\1/p' Makefile

demo: $(STAMP)
	$(VENV)/bin/avsr transcribe avsr/assets/demo.mp4 --model grid-tiny --format txt,srt,json --output-dir work/demo --overwrite
	@echo "--- work/demo/demo.txt" && cat work/demo/demo.txt
	@echo "--- work/demo/demo.srt" && cat work/demo/demo.srt
	@echo "grid-tiny knows 51 words. For ordinary speech: make demo-open FILE=talk.mp4"

# Without FILE it transcribes the demo clip, because no recording of a person comes with this repository.
demo-open: $(STAMP)
	$(VENV)/bin/avsr models pull $(OPEN_MODEL)
	$(if $(FILE),,@echo "No FILE=talk.mp4 given: this is the demo clip, whose voice is synthetic.")
	$(VENV)/bin/avsr transcribe "$(or $(FILE),avsr/assets/demo.mp4)" --model $(OPEN_MODEL)

test: $(STAMP)
	$(VENV)/bin/python -m pytest

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(STAMP)
	$(VENV)/bin/mkdocs build --strict --quiet

$(STAMP): pyproject.toml requirements.txt
	@test -n "$(PYTHON)" || { echo "avsr: no Python 3.10, 3.11 or 3.12 on the PATH; install one, or name it:" \
	"make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" scripts/check_system.py
	@"$(PYTHON)" scripts/install.py $(VENV)
