"""Whisper as an engine: windows of at most 30 s become words with times, confidences and a language.

CTranslate2 computes the network. What the original does around it is here: the choice of the language, the rounds over
a window that was not written to its end, and the times of words by the attention of the decoder to the sound.
Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", sections 2.3 and 4.5.

Letters: S samples, B items, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from avsr.arrays import Crops, Present, Samples
from avsr.decoding.checked import BROKEN
from avsr.decoding.search import Search, Spoken
from avsr.errors import ModelError
from avsr.families.whisper.checks import is_without_speech, without_crowds, without_loop
from avsr.families.whisper.features import log_mel
from avsr.families.whisper.times import spoken
from avsr.families.whisper.tokens import Tokens
from avsr.grid import HOP_SAMPLES, SAMPLE_RATE_HZ
from avsr.untrusted.values import shown

WINDOW_S = 30.0
"""The longest sound that the network takes."""
WINDOW_FRAMES = 3000
USUAL_BEAM = 5
"""Hypotheses of a beam search that does not say how many, as in the original program."""
MOST_TOKENS = 224
"""The longest text of a window, as in the original: half of the positions of the decoder."""
TOKENS_A_SECOND = 25
"""More than the fastest speech has, so that a loop in a short sound ends soon."""
LEAST_REST_S = 1.0
"""A shorter rest of a window, after its last words, is not decoded again."""
MOST_ROUNDS = 8
"""A window is decoded in at most this many rounds."""
FAR_BELOW = -5.0
"""A mean log-probability of a token that no text of a trained model has."""
SURE_OF_LANGUAGE = 0.7
"""A less probable language of one item gives way to the language of the whole batch."""


class Heard(NamedTuple):
    """Encoded sounds."""

    items: list[Samples]
    encoded: Any
    """The output of the encoder for all items, as CTranslate2 keeps it."""
    frames: int
    """T: the frames of each item, silence after its end included."""


class Recognized(NamedTuple):
    """What was recognised in one sound."""

    words: list[Spoken]
    """With times from the beginning of the sound."""
    no_speech: float
    """The probability, in [0, 1], that nobody speaks, from the first round."""
    log_prob: float
    """Mean log-probability of a token."""


class WhisperEngine:
    """A loaded model. Its calls may come from several threads; they are computed one after the other.

    model: a `ctranslate2.models.Whisper`. tokens: its tokens. count: how many tokens its network chooses from.
    """

    def __init__(self, model: Any, tokens: Tokens, count: int) -> None:
        self.model, self.tokens = model, tokens
        self._count = count

    def encode_audio(self, samples: Sequence[Samples], *, pad_s: float | None = None) -> Heard:
        """The encoded sounds. Raises ValueError for a sound of more than 30 s, or an array that is no sound.

        samples: float32 [S] each. pad_s: the silence after the longest sound; None to fill 30 s, which the network was
        trained with. Less is faster and a little less exact.
        """
        longest = max(len(item) for item in samples)
        if longest > WINDOW_S * SAMPLE_RATE_HZ:
            raise ValueError(f"got {longest / SAMPLE_RATE_HZ:.1f} s of sound, expected at most {WINDOW_S:.0f} s")
        frames = WINDOW_FRAMES
        if pad_s is not None:
            # The network takes an even number of frames.
            frames = min(WINDOW_FRAMES, 2 * math.ceil((longest / SAMPLE_RATE_HZ + pad_s) * 50))
        features_BFT = np.stack([log_mel(item, self.model.n_mels, frames) for item in samples])
        return Heard(list(samples), computed(self.model.encode, storage(features_BFT)), frames)

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: Heard | None) -> Any:
        """Raises ModelError: the model reads no lips."""
        raise ModelError("a Whisper model only hears", remedy="use modality a or auto")

    def decode(self, audio: Heard | None, lips: Any | None, search: Search) -> list[list[Spoken]]:
        """The words of each item; none where nobody seems to speak."""
        if audio is None:
            raise ModelError("a Whisper model only hears", remedy="use modality a or auto")
        return [item.words for item in self._recognize(audio, search, "", None)]

    def recognize(
        self, samples: Sequence[Samples], search: Search, *, prompt: str = "", pad_s: float | None = None
    ) -> list[Recognized]:
        """What is said in sounds of at most 30 s.

        prompt: the text before, which the words follow. pad_s: as for `encode_audio`.
        """
        return self._recognize(self.encode_audio(samples, pad_s=pad_s), search, prompt, pad_s)

    def _recognize(self, heard: Heard, search: Search, prompt: str, pad_s: float | None) -> list[Recognized]:
        whole, languages = heard, self.languages_of(heard, search)
        results = [Recognized([], 0.0, 0.0) for _ in heard.items]
        # In each round: the number of an item, and where in it the rest begins, in seconds.
        rest = [(item, 0.0) for item in range(len(heard.items))]
        for turn in range(MOST_ROUNDS):
            if turn:
                parts = [whole.items[item][round(start_s * SAMPLE_RATE_HZ) :] for item, start_s in rest]
                heard = self.encode_audio(parts, pad_s=pad_s)
            pieces = self._pieces(heard, [languages[item] for item, _ in rest], search, prompt)
            for (item, start_s), piece in zip(rest, pieces, strict=True):
                words = results[item].words + [_later(word, start_s) for word in piece.words]
                # The checks of the first round count: the rest of a window is short.
                first = results[item] if turn else piece
                results[item] = Recognized(words, first.no_speech, first.log_prob)
            rest = [
                (item, start_s + piece.rest_s)
                for (item, start_s), piece in zip(rest, pieces, strict=True)
                if piece.rest_s is not None
            ]
            if not rest:
                break
        return results

    def languages_of(self, heard: Heard, search: Search) -> list[str]:
        """The language of each item: the one that was asked for, or the most probable one."""
        if search.language is not None:
            return [search.language] * len(heard.items)
        if not self.tokens.is_multilingual:
            return ["en"] * len(heard.items)
        found = [
            {token.strip("<|>"): probability for token, probability in item}
            for item in computed(self.model.detect_language, heard.encoded)
        ]
        # Short sounds say little about their language, so they follow the sounds beside them.
        together = {
            language: sum(item[language] * len(samples) for item, samples in zip(found, heard.items, strict=True))
            for language in self.tokens.languages
            if language in found[0]
        }
        common = max(together, key=lambda language: together[language])
        best = [max(item, key=lambda language: item[language]) for item in found]
        return [own if item[own] >= SURE_OF_LANGUAGE else common for own, item in zip(best, found, strict=True)]

    def other_texts(self, heard: Heard, search: Search, count: int) -> list[list[list[Spoken]]]:
        """Of each item the words of its `count` likeliest texts without time tokens, best first."""
        languages = self.languages_of(heard, search)
        prompts = [[*self.tokens.prompt(language, search.task), self.tokens.first_time - 1] for language in languages]
        results = computed(
            self.model.generate,
            heard.encoded,
            prompts,
            beam_size=count,
            num_hypotheses=count,
            max_length=len(prompts[0]) + self._most_tokens(heard),
        )
        texts = [
            [without_loop([token for token in ids if token < self.tokens.end_of_text]) for ids in result.sequences_ids]
            for result in results
        ]
        listed: list[list[list[Spoken]]] = [[] for _ in heard.items]
        for rank in range(count):
            timed = self._timed(heard, prompts, languages, [own[rank] for own in texts])
            for item, words in enumerate(timed):
                listed[item].append(words)
        return listed

    def _most_tokens(self, heard: Heard) -> int:
        longest_s = max(len(item) for item in heard.items) / SAMPLE_RATE_HZ
        return min(MOST_TOKENS, 16 + math.ceil(longest_s * TOKENS_A_SECOND))

    def _pieces(self, heard: Heard, languages: Sequence[str], search: Search, prompt: str) -> list[_Piece]:
        """The words of one round, and where the rest of each item begins."""
        prompts = [self.tokens.prompt(language, search.task, before=prompt) for language in languages]
        is_beam = (search.kind or "beam") == "beam" and not search.temperature
        results = computed(
            self.model.generate,
            heard.encoded,
            prompts,
            beam_size=(search.beam or USUAL_BEAM) if is_beam else 1,
            sampling_temperature=search.temperature or 1.0,
            sampling_topk=0 if search.temperature else 1,
            max_length=len(prompts[0]) + self._most_tokens(heard),
            return_scores=True,
            return_no_speech_prob=True,
        )
        written = [
            self._written(result.sequences_ids[0], len(item) / SAMPLE_RATE_HZ)
            for result, item in zip(results, heard.items, strict=True)
        ]
        for place, result in enumerate(results):
            if not math.isfinite(result.scores[0]) or not math.isfinite(result.no_speech_prob):
                raise ModelError("the Whisper model gives no probabilities", got=result.scores[0], remedy=BROKEN)
            # Chance says that nobody speaks as often as any other token, and the text is as improbable as any other.
            if abs(result.no_speech_prob * self._count - 1) < 0.001 and result.scores[0] < FAR_BELOW:
                raise ModelError("the Whisper model gives the same probability for every token", remedy=BROKEN)
            if is_without_speech(result.no_speech_prob, result.scores[0]):
                written[place] = _Written([], None)
        words = self._timed(heard, prompts, languages, [item.text for item in written])
        return [
            _Piece(of_item, item.rest_s, result.no_speech_prob, result.scores[0])
            for of_item, item, result in zip(words, written, results, strict=True)
        ]

    def _written(self, tokens: Sequence[int], duration_s: float) -> _Written:
        """The tokens of the text, and where the rest of the sound begins.

        Time tokens enclose each phrase. A phrase whose end was not written is written again with the rest.
        """
        places = [place for place, token in enumerate(tokens) if token >= self.tokens.first_time]
        rest_s = None
        if places:
            last, last_s = places[-1], self.tokens.time_s(tokens[places[-1]])
            assert last_s is not None
            begins_phrase = len(places) % 2 == 1  # the second of each pair ends a phrase
            if last_s < duration_s - LEAST_REST_S and last_s > 0 and (begins_phrase or last == len(tokens) - 1):
                tokens, rest_s = tokens[:last], last_s
        text = [token for token in tokens if token < self.tokens.end_of_text]
        kept = without_loop(text)
        # After a loop nothing in the rest of the sound can be trusted to begin where the times say.
        return _Written(kept, rest_s if len(kept) == len(text) else None)

    def _timed(
        self, heard: Heard, prompts: Sequence[list[int]], languages: Sequence[str], texts: Sequence[list[int]]
    ) -> list[list[Spoken]]:
        """The words of texts, with times by the attention of the decoder."""
        results: list[list[Spoken]] = [[] for _ in texts]
        for language in dict.fromkeys(languages):
            # One call aligns texts that follow the same tokens, and all items of the encoded sounds at once.
            places = [place for place, own in enumerate(languages) if own == language and texts[place]]
            if not places:
                continue
            start = prompts[places[0]]
            start = [token for token in start[start.index(self.tokens.start) :] if token != self.tokens.first_time - 1]
            aligned = computed(
                self.model.align,
                heard.encoded,
                start,
                [texts[place] if place in places else [] for place in range(len(texts))],
                [_positions(item, heard.frames) for item in heard.items],
            )
            for place in places:
                words = self.tokens.words(texts[place])
                timed = [spoken(word, aligned[place], heard.items[place], language) for word in words]
                results[place] = without_crowds(timed)
        return results


class _Written(NamedTuple):
    text: list[int]
    rest_s: float | None


class _Piece(NamedTuple):
    words: list[Spoken]
    rest_s: float | None
    no_speech: float
    log_prob: float


def computed(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a function of CTranslate2 returns. Raises ModelError if weights do not fit or memory is short."""
    try:
        return function(*arguments, **options)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError("the Whisper model cannot be computed", got=shown(error), remedy=BROKEN) from error


def storage(array: np.ndarray) -> Any:
    import ctranslate2

    return ctranslate2.StorageView.from_array(np.ascontiguousarray(array, np.float32))


def _positions(samples: Samples, frames: int) -> int:
    """The frames of a sound without the silence after it, as the alignment counts them."""
    return min(frames, len(samples) // HOP_SAMPLES)


def _later(word: Spoken, seconds: float) -> Spoken:
    return word._replace(start_s=word.start_s + seconds, end_s=word.end_s + seconds)
