"""Output units and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsr.errors import DataError, ModelError, nearest


class WordTokenizer:
    """Each word of a closed vocabulary is one unit; ids follow the order of the list.

    At 80 ms a frame a letter a unit would not fit in time; whole words do.
    """

    FILE_NAME = "vocabulary.txt"

    def __init__(self, words: Sequence[str]) -> None:
        if not words or len(set(words)) != len(words) or any(not word or word != word.strip() for word in words):
            raise ModelError("vocabulary is wrong", got=f"{len(words)} words", expected="different words, none empty")
        self.words = tuple(words)
        self._ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def read(cls, path: Path) -> WordTokenizer:
        """One word a line. Raises ModelError when the file is missing or wrong."""
        try:
            return cls(path.read_text(encoding="utf-8").split("\n")[:-1])
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: vocabulary cannot be read", got=error) from None

    def text(self) -> str:
        """What `read` reads back."""
        return "".join(f"{word}\n" for word in self.words)

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
        return " ".join(self.words[index] for index in ids)

    def word_groups(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words that these units spell: (word, first unit, unit after the last)."""
        return [(self.words[index], position, position + 1) for position, index in enumerate(ids)]
