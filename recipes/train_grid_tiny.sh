#!/usr/bin/env bash
# Train grid-tiny from the data that docs/training.md prepares. The shipped model is the result of all steps,
# runs/grid-tiny-evidence-last/model. Interrupted, it goes on where it was when started again. Further words go to each
# `avsr train`: --quiet, or settings such as optimizer.epochs=1.
set -euo pipefail
runs=runs/grid-tiny

sound_from() { # the settings that begin with the sound of another model
    echo "initialize.audio_encoder=$1 initialize.audio_head=$1"
}

# The mean of a round and the one before keeps more of how others sound than the round that learnt the speaker.
mean() { # mean NEW SHARE OLD SHARE OUTPUT
    [ -e "$5" ] || avsr average "$1=$2" "$3=$4" --output-dir "$5"
}

# 1. The sound by itself, whole recordings.
avsr train grid-tiny-audio "$@"

# 2. In chunks too, for live use, in four rounds.
avsr train grid-tiny-audio-live "$@"
avsr train grid-tiny-audio-live output=$runs-audio-last seed=2 \
    optimizer.epochs=30 optimizer.learning_rate=1.0e-3 $(sound_from $runs-audio-live/model) "$@"
avsr train grid-tiny-audio-gentle "$@"
mean $runs-audio-gentle/model 0.6 $runs-audio-last/model 0.4 $runs-audio-mean/model
avsr train grid-tiny-audio-gentle output=$runs-audio-fifth seed=5 \
    optimizer.learning_rate=8.0e-4 train.2.per_epoch=400 augment.noise_share=0.75 'augment.snr_db=[-12.0, 20.0]' \
    augment.channel_db=6.0 augment.speed=0.1 $(sound_from $runs-audio-mean/model) "$@"
mean $runs-audio-fifth/model 0.6 $runs-audio-mean/model 0.4 $runs-audio-final/model

# 3. The lips by themselves.
avsr train grid-tiny-visual "$@"

# 4. The fusion, for which the sound stays as it is: two rounds with gates, in which the lips go on learning; one without
# gates, which begins with those lips and a new fusion; and a short one with more harm done to the lips.
avsr train grid-tiny model.fusion.gated=true "$@"
avsr train grid-tiny output=$runs-last seed=2 model.fusion.gated=true \
    optimizer.epochs=20 optimizer.learning_rate=4.0e-4 augment.noise_share=0.8 $(sound_from $runs-audio-final/model) \
    initialize.visual_encoder=$runs/model initialize.visual_head=$runs/model initialize.fusion=$runs/model "$@"
avsr train grid-tiny output=$runs-joined seed=3 \
    optimizer.epochs=45 augment.noise_share=0.8 loss.word_times_epochs=5 'modalities={a: 0.0, v: 0.25, av: 0.75}' \
    $(sound_from $runs-audio-final/model) initialize.visual_encoder=$runs-last/model initialize.visual_head=$runs-last/model "$@"
joined=$runs-joined/model
avsr train grid-tiny output=$runs-hidden seed=4 \
    optimizer.epochs=7 optimizer.learning_rate=2.5e-4 optimizer.warmup_epochs=0.5 optimizer.average_last=3 \
    augment.noise_share=0.8 'loss.word_times=[0.1, 0.1]' augment.hidden_slots=30 augment.offset_slots=5 \
    augment.wrong_lips=0.3 augment.lip_effects.dropped=0.2 augment.lip_effects.occluder=0.2 \
    $(sound_from $joined) initialize.visual_encoder=$joined initialize.visual_head=$joined initialize.fusion=$joined "$@"
mean $runs-hidden/model 0.5 $joined 0.5 $runs-final/model

# 5. Many voices for the sound: a hard round, a gentle one, one with more noise, and one with more of the speaker.
avsr train grid-tiny-audio-voices "$@"
avsr train grid-tiny-audio-voices-gentle "$@"
avsr train grid-tiny-audio-voices-gentle output=$runs-audio-voices-noise seed=9 optimizer.learning_rate=8.0e-4 \
    augment.noise_share=0.8 'augment.snr_db=[-10.0, 15.0]' augment.gain_db=20.0 \
    $(sound_from $runs-audio-voices-gentle/model) "$@"
mean $runs-audio-voices-noise/model 0.5 $runs-audio-voices-gentle/model 0.5 $runs-audio-voices-mean/model
speaker='{manifest: work/grid/manifest.jsonl, split: train}'
others='{manifest: work/grid/manifest.jsonl, split: train_other, optional: true}'
neural='{manifest: work/neural/manifest.jsonl, split: train}'
spelled='{manifest: work/an4-known/manifest.jsonl, split: train}'
avsr train grid-tiny-audio-voices-gentle output=$runs-audio-voices-last seed=11 \
    optimizer.epochs=14 optimizer.learning_rate=6.0e-4 "train=[$speaker, $speaker, $others, $neural, $spelled]" \
    augment.noise_share=0.85 'augment.snr_db=[-10.0, 12.0]' augment.gain_db=20.0 \
    $(sound_from $runs-audio-voices-mean/model) "$@"
mean $runs-audio-voices-last/model 0.7 $runs-audio-voices-mean/model 0.3 $runs-audio-voices-final/model

# 6. Many faces for the lips: one man's mouth is bent into others, in a hard round and a gentle one.
avsr train grid-tiny-visual-faces "$@"
avsr train grid-tiny-visual-faces output=$runs-visual-gentle seed=10 optimizer.epochs=24 optimizer.learning_rate=8.0e-4 \
    augment.spliced=0.2 augment.hidden_slots=4 \
    'augment.lip_effects={face: 0.4, light: 0.1, low_resolution: 0.05, blur: 0.03, time_mask: 0.05}' \
    initialize.visual_encoder=$runs-visual-faces/model initialize.visual_head=$runs-visual-faces/model "$@"

# 7. A fusion that trusts lips by evidence, in two rounds, the second with more babble. Sound and lips stay as they are.
avsr train grid-tiny-evidence $(sound_from $runs-audio-voices-mean/model) "$@"
avsr train grid-tiny-evidence output=$runs-evidence-last seed=12 \
    optimizer.epochs=28 optimizer.learning_rate=5.0e-4 'augment.snr_db=[-15.0, 12.0]' augment.babble_share=0.65 \
    initialize.fusion=$runs-evidence/model "$@"
