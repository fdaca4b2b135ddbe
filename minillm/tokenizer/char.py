"""One token per character: the simplest tokenizer, good for first experiments and small
alphabets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .base import Offsets, Tokenizer, replace_surrogates
from .specials import END_OF_TEXT, Specials, Template, check_special_names, stretches
from .to_json import char_to_json


class CharTokenizer(Tokenizer):
    """A vocabulary of single characters after the special tokens; a character outside it is an
    error.

    tokens: the text of every id, special tokens included.
    """

    def __init__(
        self, tokens: Sequence[str | None], specials: Specials | None = None, template: Template | None = None
    ) -> None:
        super().__init__([None if t is None else t.encode("utf-8") for t in tokens], specials or Specials(), template)
        self._characters = {t: id for id, t in enumerate(tokens) if t is not None and id not in self._specials.ids}
        for character, id in self._characters.items():
            if len(character) != 1:
                raise ValueError(f"CharTokenizer: tokens must be single characters; got {character!r} at {id}")
        self._codes = np.array(sorted(map(ord, self._characters)), np.uint32)  # (K,) ascending
        self._ids = np.array([self._characters[chr(code)] for code in self._codes], np.int32)

    @classmethod
    def train(cls, texts: Iterable[str], special_tokens: Sequence[str] = (END_OF_TEXT,)) -> CharTokenizer:
        """Take every character that occurs in the texts: the special tokens first, then the
        characters in order.

        If `</s>` is a special token, encoding ends with it, as with T5.

        >>> CharTokenizer.train(["banana"]).encode("nab")
        [3, 1, 2]
        """
        names = check_special_names(special_tokens, "CharTokenizer.train")
        characters: set[str] = set()
        for text in [texts] if isinstance(texts, str) else texts:
            characters.update(*stretches(replace_surrogates(text), names))
        special = {name: id for id, name in enumerate(names)}
        template = Template(after=(special["</s>"],) if "</s>" in special else ())
        return cls([*names, *sorted(characters)], Specials(special), template)

    def _encode_ordinary(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        text = "".join(texts)
        codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
        at = np.minimum(np.searchsorted(self._codes, codes), max(len(self._codes) - 1, 0))
        unknown = np.flatnonzero(self._codes[at] != codes) if len(self._codes) else np.arange(len(codes))
        if len(unknown):
            position = int(unknown[0])
            raise ValueError(
                f"CharTokenizer: text must consist of the {len(self._characters)} known characters; "
                f"got {text[position]!r} (U+{ord(text[position]):04X}) at {position}"
            )
        ids = self._ids[at] if len(codes) else np.zeros(0, np.int32)
        return ids, np.cumsum([len(part) for part in texts], dtype=np.int64)

    def _ordinary_offsets(self, text: str, first: bool) -> tuple[list[int], Offsets]:
        ids, _ = self._encode_ordinary([text])
        return ids.tolist(), [(i, i + 1) for i in range(len(text))]

    def to_json(self) -> dict[str, Any]:
        """The content of `tokenizer.json`, the format of the `tokenizers` library."""
        return char_to_json(self)
