"""Korean, and Korean with words of other languages in it.

As `plain`, without apostrophes; "%" becomes "퍼센트". Punctuation becomes a space, and figures stay figures, because
the noun decides how they are read ("3명" is "세 명", "3분" is "삼 분"). Words stand apart where the text parts them.
Korean is parted in more than one correct way, so the scores that go with it do not count spaces
(`avsr.evaluation.scores`).
"""

from __future__ import annotations

from avsr.evaluation.normalizers.plain import composed, plain_text


def korean_text(text: str) -> str:
    """The text without case and punctuation."""
    return plain_text(composed(text).replace("%", "퍼센트").replace("'", "").replace("’", ""))
