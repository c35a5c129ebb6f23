"""Text → text whose characters are what its author meant.

Prose:

- mojibake such as `Ã©` is turned back where ftfy's heuristic is certain, line by line;
- CR LF, CR, NEL and the Unicode line and paragraph separators become LF; a form feed too;
- control characters go, except tab and line feed; byte order marks, zero-width spaces, word
  joiners, soft hyphens, interlinear anchors and tag characters go; joiners that shape letters and
  marks of direction stay;
- Unicode normal form C. Blanks stay as they are, also at line ends.

Code: only line ends (CR LF and CR become LF) and a byte order mark at the beginning. Everything
else may have a meaning inside a string literal.
"""

from __future__ import annotations

import re
import unicodedata

_LINE_ENDS = re.compile("\r\n?|[\x0c\x85\u2028\u2029]")
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_PASSES = 4


def unicode(text: str, content_type: str) -> str:
    """Text and its content type (`text`, `markdown`, `code`) → repaired text.

    >>> unicode("cafÃ©\\r\\nna\\u200bïve", "text")
    'café\\nnaïve'
    >>> unicode("x = 'Ã©'\\r\\n", "code")
    "x = 'Ã©'\\n"
    """
    if content_type == "code":
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text.removeprefix("\ufeff")
    # One repair may uncover another (mojibake that hid a control character): to the fixed point.
    for _ in range(_PASSES):
        repaired = _repaired(text)
        if repaired == text:
            break
        text = repaired
    return text


def _repaired(text: str) -> str:
    if not text.isascii():
        text = _without_mojibake(text)
    if "\r" in text or "\x0c" in text or not text.isascii():
        text = _LINE_ENDS.sub("\n", text)
    text = _UNSEEN.sub("", text)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _without_mojibake(text: str) -> str:
    import ftfy

    lines = text.split("\n")
    return "\n".join(line if line.isascii() else ftfy.fix_encoding(line) for line in lines)


CLEANERS = {"unicode": unicode}
