"""Text files as documents.

A document is one unit of text: the model learns where it begins and where it ends. A file is one
document, unless it holds the marker ``<|endoftext|>``, which separates several.
"""

from __future__ import annotations

from pathlib import Path

from ..tokenizer.specials import END_OF_TEXT


def load_texts(path: str | Path) -> list[str]:
    r"""Read a UTF-8 file, or every ``.txt`` file under a folder (recursively, in sorted order), as
    documents.

    A file is one document, or one document per part between ``<|endoftext|>`` markers. White space
    next to a marker belongs to the marker; documents without any text are left out. Windows line
    ends become ``\n``.

    Raises FileNotFoundError when ``path`` does not exist, ValueError when it holds no text, when a
    folder holds no ``.txt`` file, or when a file is not UTF-8 (the message names the file and the
    offset of the bad byte).
    """
    documents = [document for file in text_files(path) for document in _split_at_markers(_read_utf8(file))]
    if not documents:
        raise ValueError(f"load_texts: {path} holds no text, only white space or nothing at all")
    return documents


def text_files(path: str | Path) -> list[Path]:
    """The file ``path``, or every ``.txt`` file under the folder ``path``, recursively, in sorted
    order; without what is hidden, files and folders whose names begin with a dot.

    Raises FileNotFoundError when ``path`` does not exist, ValueError when a folder holds no
    ``.txt`` file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"text_files: no such file or folder: {path}")
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.rglob("*.[tT][xX][tT]")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise ValueError(f"text_files: no .txt file in the folder {path}")
    return files


def _read_utf8(file: Path) -> str:
    data = file.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"load_texts: {file} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason})"
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _split_at_markers(text: str) -> list[str]:
    if END_OF_TEXT not in text:
        return [text] if text.strip() else []
    return [part for part in (part.strip() for part in text.split(END_OF_TEXT)) if part]
