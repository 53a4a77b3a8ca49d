"""Standard streams that bear what is written to them: closed ones, and terminals that are not UTF-8."""

import codecs
import io
import os
import sys
from typing import IO

PLAIN = {
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "→": "->",
    "≈": "~",
    "≥": ">=",
    "≤": "<=",
    "±": "+-",
    "×": "x",
    "·": "*",
    "█": "#",
    "░": ".",
    "°": "deg",
    "²": "^2",
    "√": "sqrt",
    "λ": "lambda",
    "σ": "sigma",
    "β": "beta",
    "α": "alpha",
    "Δ": "d",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
}
"""What is written for a character that an encoding lacks; `?` for all others."""

ERRORS = "phaseb-plain"
"""Name of the error handler that writes so."""


def prepare() -> None:
    """Make the standard streams of this process safe to write to.

    A closed descriptor (`2>&-`) is opened on the null device, so that no file of ours takes its number. An encoding
    that lacks a character gets a plain one instead of an exception.
    """
    _open_closed()
    codecs.register_error(ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not is_utf8(stream):
            reconfigure(errors=ERRORS)


def is_utf8(stream: IO[str]) -> bool:
    """Whether a stream can show every character."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "") == "utf8"


def _open_closed() -> None:
    for number in (0, 1, 2):  # in order: the lowest free number is the one that open gives
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            buffer = io.BufferedReader if mode == "r" else io.BufferedWriter
            text = io.TextIOWrapper(buffer(io.FileIO(number, mode, closefd=False)), "utf-8", line_buffering=True)
            setattr(sys, name, text)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in wrong), error.end
