"""Tokenizers: text to the ids of a model's output units, and back."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from avsr.errors import DataError, ModelError, nearest
from avsr.text import has_controls, without_controls
from avsr.untrusted.files import read_file
from avsr.untrusted.values import shown

MAX_UNITS = 1 << 20
MAX_VOCABULARY_BYTES = 16 << 20
MAX_TOKENIZER_BYTES = 16 << 20


class WordTokenizer:
    """Every word of a closed vocabulary is one unit. Its id is its place in the list.

    Letters as units would not fit: CTC gives at most one unit a frame, and 80 ms often hold several letters.

    Raises ModelError if `words` is empty, has a word twice, or has a word that is empty or has blanks around it.
    """

    FILE_NAME = "vocabulary.txt"
    """Name of its file in a checkpoint folder."""

    def __init__(self, words: Sequence[str]) -> None:
        if not words or len(set(words)) != len(words) or any(not word or word != word.strip() for word in words):
            raise ModelError("vocabulary is wrong", got=f"{len(words)} words", expected="different words, none empty")
        _check_units(words)
        self.words = tuple(words)
        self._ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def read(cls, path: Path) -> WordTokenizer:
        """The tokenizer in a file of one word a line. Raises ModelError if the file is missing or wrong."""
        try:
            words = read_file(path, MAX_VOCABULARY_BYTES).decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ModelError(f"{path}: vocabulary cannot be read", got=error) from None
        try:
            # Only the end of the last line is no word. Any other empty line is an error of the file.
            return cls(words[:-1] if words[-1] == "" else words)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None

    def data(self) -> bytes:
        """The content of the file that `read` reads."""
        return "".join(f"{word}\n" for word in self.words).encode()

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Ids of the words. Raises DataError for a word outside the vocabulary."""
        ids = []
        for word in text.split():
            if word not in self._ids:
                close = nearest(word, self.words)
                raise DataError(
                    f"word {word!r} is not in the vocabulary of {len(self)} words",
                    remedy=f"did you mean {close!r}?" if close else "use a model with an open vocabulary",
                )
            ids.append(self._ids[word])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The words with a space between them."""
        return " ".join(self.words[index] for index in ids)

    def word_groups(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words of these units, each with its units: (word, index in `ids` of the first, index after the last)."""
        return [(self.words[index], position, position + 1) for position, index in enumerate(ids)]

    def open_from(self, ids: Sequence[int]) -> int:
        """The index from which on further units may still change the words: there is no such unit."""
        return len(ids)


class SentencePieceTokenizer:
    """The pieces into which a SentencePiece model (Kudo and Richardson, arXiv 1808.06226) cuts any text.

    `model` is the content of the model's file. Raises ModelError if it is not a SentencePiece model.
    """

    FILE_NAME = "tokenizer.model"
    """Name of its file in a checkpoint folder."""

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, ValueError) as error:
            raise ModelError("tokenizer cannot be read", got=shown(error), expected="a SentencePiece model") from None
        if len(self) > MAX_UNITS:
            raise ModelError("tokenizer is too large", got=f"{len(self)} pieces", expected=f"{MAX_UNITS} at most")
        try:
            pieces = [self._processor.id_to_piece(index) for index in range(len(self))]
        except UnicodeDecodeError as error:
            raise ModelError("tokenizer cannot be read", got=shown(error), expected="pieces in UTF-8") from None
        _check_units(pieces)
        self._starts = []  # for each piece: whether it begins a word, which SentencePiece marks with U+2581
        self._alone = []  # for each piece: whether it is the unknown piece, which stands for a word by itself
        for index, piece in enumerate(pieces):
            self._starts.append(piece.startswith("\u2581"))
            self._alone.append(self._processor.is_unknown(index))

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> SentencePieceTokenizer:
        """A tokenizer of `size` pieces, trained as a unigram model. The same texts give the same tokenizer.

        The unknown piece counts as one of them, and every letter of the texts has a piece. Raises DataError if there is
        no text, or if the texts do not allow this number of pieces.
        """
        import sentencepiece

        # Sorted, because the trainer depends on the order of the texts.
        texts = sorted(text for text in texts if text)
        if not texts:
            raise DataError("no text to make a vocabulary of")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type="unigram",
                vocab_size=size,
                character_coverage=1.0,
                # The texts are normalised already; a second rule would change what the pieces join to.
                normalization_rule_name="identity",
                # CTC has no beginning or end of a sentence: such units would widen the head and never occur.
                bos_id=-1,
                eos_id=-1,
                max_sentence_length=max(len(text.encode()) for text in texts),  # longer ones are left out
                num_threads=1,  # several threads add in another order, and the result changes
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            # Only the text of the error says which numbers are possible.
            most, least = (re.search(form, str(error)) for form in (r"value <= (\d+)", r"required_chars. \d+ vs (\d+)"))
            if most is None and least is None:
                raise DataError("vocabulary cannot be made", got=error) from None
            bound = f"{most[1]} at most" if most else f"{least[1]} at least" if least else ""
            remedy = "ask for fewer, or give more text" if most else "ask for more"
            raise DataError(
                "vocabulary does not fit the text", got=f"{size} pieces", expected=bound, remedy=remedy
            ) from None
        return cls(model.getvalue())

    @classmethod
    def read(cls, path: Path) -> SentencePieceTokenizer:
        """The tokenizer in the file of a SentencePiece model. Raises ModelError if it is missing or wrong."""
        model = read_file(path, MAX_TOKENIZER_BYTES)
        try:
            return cls(model)
        except ModelError as error:
            raise ModelError(f"{path}: {error.what}", got=error.got, expected=error.expected) from None

    def data(self) -> bytes:
        """The content of the file that `read` reads."""
        return self._model

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces. Letters that the model does not know become its unknown piece."""
        return self._processor.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text as SentencePiece joins it. A piece that is only a space gives a space."""
        return without_controls(self._processor.decode(list(ids)))  # pieces of single bytes may form any character

    def word_groups(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words of these pieces, each with its pieces: (word, index in `ids` of the first, index after the last).

        Joined with spaces, the words are the decoded text without repeated spaces.
        """
        groups = []
        first = 0
        for position in range(1, len(ids) + 1):
            ends = position == len(ids) or self._starts[ids[position]]
            if ends or self._alone[ids[position]] or self._alone[ids[position - 1]]:
                # A piece may have a space inside. Both words then get the same pieces.
                groups += [(word, first, position) for word in self.decode(ids[first:position]).split()]
                first = position
        return groups

    def open_from(self, ids: Sequence[int]) -> int:
        """The index of the first unit of the last word: further pieces may still belong to that word."""
        groups = self.word_groups(ids)
        return groups[-1][1] if groups else 0


Tokenizer = WordTokenizer | SentencePieceTokenizer


class Units(Protocol):
    """The units of any model, for training."""

    def __len__(self) -> int:
        """How many units there are."""

    def encode(self, text: str) -> list[int]:
        """Ids of the units of a text. Raises DataError for a text that the units cannot write."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""


def _check_units(units: Sequence[str]) -> None:
    """Raises ModelError for a unit with control characters: a terminal would obey them."""
    for number, unit in enumerate(units):
        if has_controls(unit) or len(unit.splitlines()) > 1:
            raise ModelError(
                "vocabulary is wrong", got=f"unit {number}, {unit!a:.80}", expected="no control characters"
            )


def read_vocabulary(path: Path) -> Tokenizer:
    """The tokenizer in a file: a SentencePiece model if the name ends in .model, else one word a line.

    Raises ModelError if the file is missing or wrong.
    """
    return SentencePieceTokenizer.read(path) if path.suffix == ".model" else WordTokenizer.read(path)


def read_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a checkpoint folder, of either kind. Raises ModelError if its file is missing or wrong."""
    pieces = Path(folder, SentencePieceTokenizer.FILE_NAME)
    if pieces.is_file():
        return SentencePieceTokenizer.read(pieces)
    return WordTokenizer.read(Path(folder, WordTokenizer.FILE_NAME))
