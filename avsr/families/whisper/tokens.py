"""The tokens of Whisper: texts to numbers and back, and how the tokens of a text form words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avsr.decoding.tokenizer import MAX_TOKENIZER_BYTES
from avsr.errors import ModelError
from avsr.text import is_unspaced, one_line
from avsr.untrusted.files import read_file
from avsr.untrusted.values import shown

TIMESTAMP_S = 0.02
"""From one time token to the next."""
UNFINISHED = "\ufffd"
"""What the bytes of a part of a character decode to."""


class TokenWord(NamedTuple):
    """A word as tokens of a text."""

    text: str
    start: int
    """The first token of its letters."""
    end: int
    """The token after its letters. Punctuation is left out, because it stands for the pause beside the word."""


class Tokens:
    """The tokens of one model. Raises ModelError if the file does not describe tokens of Whisper.

    path: its tokenizer.json.
    """

    def __init__(self, path: Path) -> None:
        import tokenizers

        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_buffer(read_file(path, MAX_TOKENIZER_BYTES))
        except (ModelError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the package raises Exception itself, and the panics of Rust are no Exception
            raise ModelError(
                f"{path}: cannot be read", got=shown(error), expected="the tokens of a Whisper model"
            ) from error
        # Other rules could double a text again and again.
        kinds = (type(self._tokenizer.decoder), type(self._tokenizer.pre_tokenizer))
        if kinds != (tokenizers.decoders.ByteLevel, tokenizers.pre_tokenizers.ByteLevel):
            got = " and ".join(kind.__name__ for kind in kinds)
            raise ModelError(
                f"{path}: not the tokens of a Whisper model", got=f"rules {got}", expected="rules ByteLevel"
            )
        self._path = path
        self.count = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        """One more than the largest number of a token."""
        self.end_of_text = self._id("<|endoftext|>")
        self.start = self._id("<|startoftranscript|>")
        self.previous_text = self._id("<|startofprev|>")
        self.transcribe, self.translate = self._id("<|transcribe|>"), self._id("<|translate|>")
        self.first_time = self._id("<|notimestamps|>") + 1
        # Models for English alone list the languages too; the numbers of their tokens are one lower.
        self.is_multilingual = self.end_of_text == 50257
        self.languages = tuple(
            match[1]
            for number in range(self.start + 1, min(self.transcribe, self.translate))
            if (match := re.fullmatch(r"<\|([a-z]{2,3})\|>", self._tokenizer.id_to_token(number) or ""))
        )
        if not self.is_multilingual:
            self.languages = ("en",)

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ModelError(f"{self._path}: not the tokens of a Whisper model", expected=f"a token {token}")
        return int(number)

    def prompt(self, language: str, task: str, *, before: str = "", most: int = 200) -> list[int]:
        """The tokens that a text of this language follows.

        before: the text that precedes it. most: how many of its last tokens are used.
        """
        tokens = []
        if before:
            tokens = [self.previous_text, *self.encode(" " + before.strip())[-most:]]
        tokens.append(self.start)
        if self.is_multilingual:
            tokens.append(self._id(f"<|{language}|>"))
            tokens.append(self.translate if task == "translate" else self.transcribe)
        return tokens

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; special tokens have none."""
        return str(self._tokenizer.decode([token for token in tokens if token < self.end_of_text]))

    def time_s(self, token: int) -> float | None:
        """The time that a token stands for, in seconds from the beginning of the window; None for other tokens."""
        return (token - self.first_time) * TIMESTAMP_S if token >= self.first_time else None

    def words(self, tokens: Sequence[int]) -> list[TokenWord]:
        """The words of a text, with the punctuation beside them. In scripts without spaces each piece is a word."""
        groups: list[list[_Piece]] = []
        before = ""
        for piece in self._pieces(tokens):
            changes = _has_letters(piece.text) and (is_unspaced(before) or is_unspaced(piece.text))
            if not groups or piece.text.startswith(" ") or changes:
                groups.append([])
            groups[-1].append(piece)
            before = piece.text
        return [_word(group) for group in _with_punctuation(groups)]

    def _pieces(self, tokens: Sequence[int]) -> list[_Piece]:
        """The shortest runs of tokens that are whole characters."""
        pieces, first = [], 0
        for end in range(1, len(tokens) + 1):
            text = self.decode(tokens[first:end])
            # A token of a text may be the character for unknown bytes itself; then the run ends where the text ends.
            if UNFINISHED not in text or end == len(tokens):
                pieces.append(_Piece(text.replace(UNFINISHED, ""), first, end))
                first = end
        return pieces


class _Piece(NamedTuple):
    text: str
    start: int
    end: int


def _has_letters(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _with_punctuation(groups: list[list[_Piece]]) -> list[list[_Piece]]:
    """The same groups, with those that hold no letters joined to the word before, or to the first word."""
    words: list[list[_Piece]] = []
    waiting: list[_Piece] = []
    for group in groups:
        if any(_has_letters(piece.text) for piece in group):
            words.append([*waiting, *group])
            waiting = []
        elif words:
            words[-1] += group
        else:
            waiting += group
    return words


def _word(group: list[_Piece]) -> TokenWord:
    letters = [piece for piece in group if _has_letters(piece.text)]
    text = one_line("".join(piece.text for piece in group)).replace(" ", "")
    return TokenWord(text, letters[0].start, letters[-1].end)
