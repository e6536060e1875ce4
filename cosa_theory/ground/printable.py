"""Text from outside, made fit to be printed: nothing invisible, nothing a stream cannot take.

Names of tensors and files, texts of configurations and paths may hold anything: terminal escapes,
line breaks, marks that reverse the order of what follows, halves of surrogate pairs. What is
printed, drawn or put on a page passes through `printable`; stored results keep the true name.
"""

import codecs
import json
import re
import shlex
import unicodedata
from collections.abc import Sequence
from typing import Any

__all__ = [
    "READABLE",
    "command_line",
    "json_text",
    "printable",
    "readable",
    "shortened",
    "width_of",
]

READABLE = "cosa_theory.readable"
"""The name, among the error handlers of codecs, of the one that writes signs in ASCII."""

# Drawn as nothing, though `str.isprintable` calls them printable: fillers, selectors of variants.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SIGNS = {
    **{"×": "x", "Δ": "D", "…": "...", "‖": "||", "·": "*", "⊗": "(x)", "√": "sqrt", "∘": "o"},
    **{"≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∝": "~", "±": "+/-", "∓": "-/+", "∞": "inf"},
    **{"→": "->", "←": "<-", "↦": "->", "½": "1/2", "∂": "d", "∇": "grad", "∅": "{}", "⁄": "/"},
    **{"⟨": "<", "⟩": ">", "⌈": "ceil(", "⌉": ")", "⌊": "floor(", "⌋": ")", "∈": "in", "∪": "u"},
    **{"λ": "lambda", "Λ": "Lambda", "µ": "mu"},  # in Unicode, lamda and micro
    **{"─": "-", "–": "-", "—": "-", "−": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "ℓ": "l"},
}


def printable(text: str) -> str:
    r"""Return text on one line in which every character is seen.

    Control characters (C0, delete, C1), marks of direction and other format characters, separators
    other than the space, halves of surrogate pairs and characters that are drawn as nothing are
    replaced by their escapes in Python: ``\n``, ``\x1b``, ``\u202e``.

    Examples
    --------
    >>> print(printable("a\x1b[31m\nb"))
    a\x1b[31m\nb
    """
    if text.isprintable() and (text.isascii() or not _BLANK.search(text)):
        return text
    return "".join(
        one if one.isprintable() and not _BLANK.match(one) else _escape(one) for one in text
    )


def _escape(one: str) -> str:
    return one.encode("unicode_escape").decode()


def readable(text: str, encoding: str | None) -> str:
    """Return text as a stream of this encoding shows it: signs that it lacks are spelt in ASCII."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, READABLE).decode(encoding)


def _spelt(one: str) -> str:
    """Spell a character in ASCII: a sign, a letter without its accent, or its escape."""
    if one in _SIGNS:
        return _SIGNS[one]
    kind = unicodedata.decomposition(one).split(" ")[0]
    parts = [part for part in unicodedata.normalize("NFKD", one) if not unicodedata.combining(part)]
    raised = {"<super>": "^", "<sub>": "_"}.get(kind, "")
    if parts != [one]:
        return raised + "".join(part if part.isascii() else _spelt(part) for part in parts)
    name = unicodedata.name(one, "").split()
    if name[:1] == ["GREEK"] and len(name) == 4:  # GREEK SMALL LETTER SIGMA
        return name[-1].lower() if name[1] == "SMALL" else name[-1].capitalize()
    return _escape(one)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    spelt = "".join(map(_spelt, error.object[error.start : error.end]))
    return spelt.replace("^-^", "^-"), error.end


codecs.register_error(READABLE, _replace)


def json_text(value: Any, encoding: str | None = "utf-8") -> str:
    r"""Return a value as JSON that every terminal of this encoding shows and every parser reads.

    What `printable` would escape is written as ``\uXXXX``, which stands for the same text; so is
    every character beyond ASCII where the encoding is none of Unicode.
    """
    unicode = (encoding or "").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=not unicode, indent=1, allow_nan=False)
    return re.sub(
        r"[^\n -~]", lambda found: found[0] if printable(found[0]) == found[0] else
        "".join(rf"\u{code:04x}" for code in _units(found[0])), text,
    )  # fmt: skip


def _units(one: str) -> Sequence[int]:
    """Return the code units of a character in UTF-16: one, or a surrogate pair."""
    data = one.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2)]


def width_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def shortened(text: str, length: int, gap: str = "…") -> str:
    """Return a printable text of at most `length` columns, its middle left out if need be."""
    text = printable(text)
    if width_of(text) <= length:
        return text
    kept = max(length - len(gap), 1)
    head, tail = _fitting(text, kept // 2), _fitting(text[::-1], kept - kept // 2)
    return f"{head}{gap}{tail[::-1]}"


def _fitting(text: str, length: int) -> str:
    """Return as much of the beginning as fits into so many columns."""
    end = min(len(text), length)
    while width_of(text[:end]) > length:
        end -= 1
    return text[:end]


def command_line(words: Sequence[str]) -> str:
    """Return words as a line that a shell reads back as the same words.

    Words with characters that are not `printable` are written in the shell's own escapes, $'…'.
    """
    return " ".join(
        shlex.quote(word) if printable(word) == word else _dollar(word) for word in words
    )


def _dollar(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    shown = "".join(
        one if printable(one) == one
        else "".join(rf"\x{byte:02x}" for byte in one.encode("utf-8", "surrogateescape"))
        for one in escaped
    )  # fmt: skip
    return f"$'{shown}'"
