"""The part of README.md that a run of the bench writes.

It stands between two lines, and nothing else in the file is touched.
"""

from __future__ import annotations

from pathlib import Path

BEGIN, END = "<!-- peers -->", "<!-- /peers -->"


class Unmarked(Exception):
    """The file has not exactly one place for the table."""


def check(path: Path) -> None:
    """Raises `Unmarked` if `fill` would; for asking before an hour of measuring."""
    _parts(path)


def fill(path: Path, text: str) -> None:
    """Puts `text` between the marks, in place of what was there."""
    before, after = _parts(path)
    path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}")


def _parts(path: Path) -> tuple[str, str]:
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise Unmarked(f"{path} wants one line {BEGIN} and one line {END} after it")
    return text.split(BEGIN)[0], text.split(END)[1]
