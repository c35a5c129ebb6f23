"""Texts from data → text that is safe inside an HTML page, and values → JSON for a script block."""

from __future__ import annotations

import html
import json
import math
from typing import Any


def readable(text: str) -> str:
    """Any text → the same with control characters and lone surrogates made visible.

    Tabs and line ends stay. Direction overrides are shown as well: they could make a harmless
    sentence read as another.

    >>> readable("a\\x00b\\x1b[31m"), readable("safe\\u202etxt"), readable("\\ud800")
    ('a␀b␛[31m', 'safe⟨U+202E⟩txt', '⟨U+D800⟩')
    """
    return "".join(
        character if character.isprintable() or character in "\n\t" else _visible(character)
        for character in text.replace("\r\n", "\n")
    )


def _visible(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0x80 <= code <= 0x9F or 0x200E <= code <= 0x202E or 0x2066 <= code <= 0x2069:
        return f"⟨U+{code:04X}⟩"
    if 0xD800 <= code <= 0xDFFF:
        return f"⟨U+{code:04X}⟩"
    return character


def escape(value: object) -> str:
    """Anything → its text, safe between tags and inside quoted attributes.

    >>> escape('</script><img onerror="x">')
    '&lt;/script&gt;&lt;img onerror=&quot;x&quot;&gt;'
    """
    return html.escape(readable(str(value)), quote=True)


def inline_json(value: Any) -> str:
    """A value → strict JSON that cannot end the script block it stands in.

    Non-finite numbers become null. `<`, `>`, `&` and the two line separators of JavaScript are
    written as escapes.

    >>> inline_json({"text": "</script>", "loss": float("nan")})
    '{"text":"\\\\u003c/script\\\\u003e","loss":null}'
    """
    text = json.dumps(_strict(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {readable(str(key)): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return readable(value) if isinstance(value, str) else value
