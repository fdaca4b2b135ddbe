"""Text files as documents.

A document is one unit of text: the model learns where it begins and where it ends. A file is one document,
unless it holds the marker ``<|endoftext|>``, which separates several.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..tokenizer.specials import END_OF_TEXT


def load_texts(path: str | Path) -> list[str]:
    r"""Read a UTF-8 file, or every ``.txt`` file under a folder (recursively, in sorted order), as documents.

    A file is one document, or one document per part between ``<|endoftext|>`` markers. White space next to a
    marker belongs to the marker; documents without any text are left out. Windows line ends become ``\n``.

    Raises FileNotFoundError when ``path`` does not exist, ValueError when it holds no text, when a folder
    holds no ``.txt`` file, or when a file is not UTF-8 (the message names the file and the offset of the bad
    byte).
    """
    documents = [document for file in text_files(path) for document in _split_at_markers(_read_utf8(file))]
    if not documents:
        raise ValueError(f"load_texts: {path} holds no text, only white space or nothing at all")
    return documents


def text_files(path: str | Path) -> list[Path]:
    """The file ``path``, or every ``.txt`` file under the folder ``path``, recursively, in sorted order.

    Raises FileNotFoundError when ``path`` does not exist, ValueError when a folder holds no ``.txt`` file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"text_files: no such file or folder: {path}")
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".txt" and file.is_file())
    if not files:
        raise ValueError(f"text_files: no .txt file in the folder {path}")
    return files


def _read_utf8(file: Path) -> str:
    data = file.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"load_texts: {file} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} "
            f"({error.reason})"
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _split_at_markers(text: str) -> list[str]:
    if END_OF_TEXT not in text:
        return [text] if text.strip() else []
    return [part for part in (part.strip() for part in text.split(END_OF_TEXT)) if part]


def split_documents(
    documents: Sequence[str], validation: float = 0.1, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Split documents into a training and a validation list, both in their original order.

    A random share ``validation`` of the documents (at least one) is held out; documents with equal text stay
    on the same side, so that no validation document was ever trained on. A single document is cut instead:
    its first part is for training, its last ``validation`` share for validation.

    >>> split_documents(["0123456789"], validation=0.2)
    (['01234567'], ['89'])

    Raises ValueError when ``validation`` is not between 0 and 1, or one side would be empty.
    """
    if not 0.0 < validation < 1.0:
        raise ValueError(
            f"split_documents: validation must be between 0 and 1, both excluded; got {validation}"
        )
    distinct = list(dict.fromkeys(documents))
    if len(distinct) > 1:
        count = min(max(round(validation * len(distinct)), 1), len(distinct) - 1)
        chosen = np.random.default_rng(seed).permutation(len(distinct))[:count]
        held_out = {distinct[i] for i in chosen}
        return [d for d in documents if d not in held_out], [d for d in documents if d in held_out]
    text = distinct[0] if distinct else ""
    cut = int(len(text) * (1.0 - validation))
    if not 0 < cut < len(text):
        raise ValueError(f"split_documents: a text of {len(text)} characters is too short to split")
    return [text[:cut]], [text[cut:]]
