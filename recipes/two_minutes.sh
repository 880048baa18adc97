#!/usr/bin/env bash
# Train a first model in about two minutes on two CPU cores, from a few clips of a talking face, and read them with it.
#
#   bash two_minutes.sh CLIPS    a folder of about ten short clips, each with what is said beside it: NAME.mp4, NAME.txt
#   bash two_minutes.sh          the demo clip of the package
#
# It writes to work/two-minutes and runs/two-minutes. The model learns the clips by heart and knows their words only: it
# shows that every step works with your files, and is no measure of anything. Words after CLIPS go to `avsr train`.
set -euo pipefail
work=work/two-minutes
clips=${1:-}
[ $# = 0 ] || shift
if [ -z "$clips" ]; then
    clips=$work/clips
    assets=$(python -c 'from avsr.shipped import ASSETS; print(ASSETS)')
    mkdir -p "$clips"
    cp "$assets/demo.mp4" "$assets/demo.txt" "$clips"
fi

avsr prepare folder "$clips" -o $work/prepared                     # sound, lip crops and a manifest
avsr vocabulary $work/prepared/manifest.jsonl -o $work/words.txt   # the words that the model will know
avsr train two-minutes model.vocabulary_size="$(wc -l < $work/words.txt)" "$@"
avsr transcribe "$clips"/*.mp4 --model runs/two-minutes/model
