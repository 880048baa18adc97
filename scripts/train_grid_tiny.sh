#!/usr/bin/env bash
# Train grid-tiny as it was trained, from what README.md, "Train your own", prepares. Interrupted, it goes on where it
# was when started again. Further words go to each `avsr train`: --quiet, or settings such as optimizer.epochs=1.
set -euo pipefail

# 1. The sound by itself, whole recordings.
avsr train configs/grid-tiny-audio.yaml "$@"

# 2. In chunks too, for live use, in three rounds. The last one learns the speaker; a mean with the one before keeps
#    more of how others sound.
avsr train configs/grid-tiny-audio-live.yaml "$@"
avsr train configs/grid-tiny-audio-live.yaml output=runs/grid-tiny-audio-last seed=2 \
    optimizer.epochs=30 optimizer.learning_rate=1.0e-3 \
    initialize.audio_encoder=runs/grid-tiny-audio-live/model initialize.audio_head=runs/grid-tiny-audio-live/model "$@"
avsr train configs/grid-tiny-audio-gentle.yaml "$@"
[ -e runs/grid-tiny-audio-mean/model ] || python scripts/average_models.py runs/grid-tiny-audio-gentle/model=0.6 \
    runs/grid-tiny-audio-last/model=0.4 --output runs/grid-tiny-audio-mean/model

# 3. The lips by themselves.
avsr train configs/grid-tiny-visual.yaml "$@"

# 4. The fusion. The sound stays as it is.
avsr train configs/grid-tiny.yaml "$@"
