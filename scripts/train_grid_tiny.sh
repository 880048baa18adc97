#!/usr/bin/env bash
# Train grid-tiny as it was trained, from what README.md, "Train your own", prepares. Interrupted, it goes on where it
# was when started again. Further words go to each `avsr train`: --quiet, or settings such as optimizer.epochs=1.
set -euo pipefail
runs=runs/grid-tiny

sound_from() { # the settings that begin with the sound of another model
    echo "initialize.audio_encoder=$1 initialize.audio_head=$1"
}

# The mean of a round and the one before keeps more of how others sound than the round that learnt the speaker.
mean() { # mean NEW OLD OUTPUT
    [ -e "$3" ] || python scripts/average_models.py "$1=0.6" "$2=0.4" --output "$3"
}

# 1. The sound by itself, whole recordings.
avsr train configs/grid-tiny-audio.yaml "$@"

# 2. In chunks too, for live use, in four rounds.
avsr train configs/grid-tiny-audio-live.yaml "$@"
avsr train configs/grid-tiny-audio-live.yaml output=$runs-audio-last seed=2 \
    optimizer.epochs=30 optimizer.learning_rate=1.0e-3 $(sound_from $runs-audio-live/model) "$@"
avsr train configs/grid-tiny-audio-gentle.yaml "$@"
mean $runs-audio-gentle/model $runs-audio-last/model $runs-audio-mean/model
avsr train configs/grid-tiny-audio-gentle.yaml output=$runs-audio-fifth seed=5 \
    optimizer.learning_rate=8.0e-4 train.2.per_epoch=400 augment.noise_share=0.75 'augment.snr_db=[-12.0, 20.0]' \
    augment.channel_db=6.0 augment.speed=0.1 $(sound_from $runs-audio-mean/model) "$@"
mean $runs-audio-fifth/model $runs-audio-mean/model $runs-audio-final/model

# 3. The lips by themselves.
avsr train configs/grid-tiny-visual.yaml "$@"

# 4. The fusion, in two rounds. The sound stays as it is.
avsr train configs/grid-tiny.yaml "$@"
avsr train configs/grid-tiny.yaml output=$runs-last seed=2 \
    optimizer.epochs=20 optimizer.learning_rate=4.0e-4 augment.noise_share=0.8 $(sound_from $runs-audio-final/model) \
    initialize.visual_encoder=$runs/model initialize.visual_head=$runs/model initialize.fusion=$runs/model "$@"
