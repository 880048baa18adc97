#!/usr/bin/env bash
# Train a first model in about two minutes on two CPU cores, from a few clips of a talking face, and read them with it.
#
#   bash two_minutes.sh CLIPS    a folder of about ten short clips, each with what is said beside it: NAME.mp4, NAME.txt
#   bash two_minutes.sh          the demo clip of the package
#
# It writes to work/NAME and runs/NAME, where NAME is two-minutes unless the variable NAME says otherwise: other clips or
# settings need another one. The model learns the clips by heart and knows their words only: it shows that every step
# works with your files, and is no measure of anything. Words after CLIPS go to `avsr train`. On a busy machine set
# OMP_NUM_THREADS=1.
set -euo pipefail
name=${NAME:-two-minutes}
work=work/$name
clips=${1:-}
[ $# = 0 ] || shift
if [ -z "$clips" ]; then
    clips=$work/clips
    assets=$(python -c 'from avsr.shipped import ASSETS; print(ASSETS)')
    mkdir -p "$clips"
    cp "$assets/demo.mp4" "$assets/demo.txt" "$clips"
fi

avsr prepare folder "$clips" -o "$work/prepared"                     # sound, lip crops and a manifest
avsr vocabulary "$work/prepared/manifest.jsonl" -o "$work/words.txt"   # the words that the model will know
avsr train two-minutes output="runs/$name" vocabulary="$work/words.txt" \
    model.vocabulary_size="$(wc -l < "$work/words.txt")" "train.0.manifest=$work/prepared/manifest.jsonl" \
    "dev.manifest=$work/prepared/manifest.jsonl" "$@"
avsr transcribe "$clips"/*.mp4 --model "runs/$name"
