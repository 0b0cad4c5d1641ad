"""The lines of a text file whose encoding nobody told, each with its original bytes.

UTF-8 with or without a byte order mark, and UTF-16 with one, are read as they are. A line that is
not UTF-8 inside such a file is not guessed at: a wrong guess changes what a clinician wrote and
nobody sees it. It is read only where the caller says which encoding it has.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flywheel.errors import BadRecordError, ConfigError

FallbackEncoding = Literal["cp1252", "latin-1", "cp437", "cp850", "mac-roman"]
"""Encodings a line may be in that is not UTF-8: Windows, ISO 8859-1, DOS, old Macs."""
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_WORKBOOKS = {b"PK\x03\x04": ".xlsx", b"\xd0\xcf\x11\xe0": ".xls"}


@dataclass(frozen=True)
class TextLine:
    """One line as it stands in the file."""

    raw: bytes
    text: str
    """With its line end. Bytes that could not be read are lone surrogates."""
    problem: BadRecordError | None = None
    """Why `text` cannot be trusted."""


def text_lines(path: Path, fallback: FallbackEncoding | None = None) -> Iterator[TextLine]:
    """The lines of a file.

    Args:
        path: of the file.
        fallback: how to read a line that is not UTF-8.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
            _refuse_what_is_no_text(path, start)
            file.seek(0)
            encoding = _UTF16.get(start[:2])
            if encoding is not None:
                yield from _utf16_lines(file.read(), encoding)
                return
            for number, raw in enumerate(file):
                yield _utf8_line(raw, fallback, is_first=number == 0)
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error


def _refuse_what_is_no_text(path: Path, start: bytes) -> None:
    workbook = _WORKBOOKS.get(start[:4])
    if workbook is not None:
        problem = f"is an Excel workbook ({workbook}); in Excel: Save As, CSV UTF-8"
        raise ConfigError(str(path), [problem])
    if b"\0" in start and start[:2] not in _UTF16:
        raise ConfigError(str(path), ["is no text, or UTF-16 without its mark; save it as UTF-8"])


def _utf8_line(raw: bytes, fallback: FallbackEncoding | None, *, is_first: bool) -> TextLine:
    body = raw.removeprefix(codecs.BOM_UTF8) if is_first else raw
    try:
        return TextLine(raw, body.decode("utf-8"))
    except UnicodeDecodeError as error:
        if fallback is not None:
            return _fallback_line(raw, body, fallback)
        found = body[error.start : error.start + 1]
        guess = found.decode("cp1252", errors="replace")
        detail = (
            f"not UTF-8: {error.reason} (byte 0x{found.hex()} at {error.start}; in Windows-1252 it "
            f"is {guess!r}). If that is right, import the file again with --encoding cp1252"
        )
        text = body.decode("utf-8", errors="surrogateescape")
        return TextLine(raw, text, BadRecordError("bad_encoding", detail))


def _fallback_line(raw: bytes, body: bytes, fallback: FallbackEncoding) -> TextLine:
    try:
        return TextLine(raw, body.decode(fallback))
    except UnicodeDecodeError as error:
        text = body.decode("utf-8", errors="surrogateescape")
        detail = f"neither UTF-8 nor {fallback}: {error.reason} at {error.start}"
        return TextLine(raw, text, BadRecordError("bad_encoding", detail))


def _utf16_lines(data: bytes, encoding: str) -> Iterator[TextLine]:
    """UTF-16 has no byte that ends a line: the file is decoded as a whole, and encoded back."""
    text = data[2 : len(data) // 2 * 2].decode(encoding, errors="surrogatepass")
    pieces = text.split("\n")
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1
        line = piece if is_last else piece + "\n"
        raw = line.encode(encoding, errors="surrogatepass")
        raw = data[:2] + raw if number == 0 else raw
        torn = data[-1:] if is_last and len(data) % 2 else b""
        problem = BadRecordError("bad_encoding", "UTF-16 that ends in the middle of a character")
        if line or torn:
            yield TextLine(raw + torn, line, problem if torn else None)
