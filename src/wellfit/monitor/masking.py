"""Text → the same text without secrets, for everything a run folder keeps of its surroundings.

What is masked: the value of anything named like a secret (`--api-key`, `HF_TOKEN=`, `password:`),
passwords inside addresses, and words that have the shape of a known kind of access token.
A secret under an innocent name and without a known shape cannot be recognised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "<masked>"

# The name ends in such a word: `token` and `hf_token`, but not `batch_tokens` or `tokenizer`.
# It errs on the safe side: the value of `monkey` is masked too.
_NAME = re.compile(
    r"(?:token|key|secret|password|passwd|passphrase|pwd|credentials?|auth|authorization)$",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    r"""(?P<name>[A-Za-z_][\w.-]*)(?P<sign>["']?[ \t]*[:=][ \t]*)"""
    r"""(?P<value>"[^"\n]*"|'[^'\n]*'|[^\s,;&}\]]+)"""
)
_BEARER = re.compile(r"\b(bearer|basic)[ \t]+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)[^\s/@:]*:?[^\s/@]*@")
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}"
    r"|sk-[A-Za-z0-9_-]{16,}"
    r"|gh[opsur]_[A-Za-z0-9]{16,}"
    r"|github_pat_[A-Za-z0-9_]{16,}"
    r"|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
)


def names_a_secret(name: str) -> bool:
    """Whether a value of this name should not be written down.

    >>> [names_a_secret(name) for name in ("HF_TOKEN", "--api-key", "train.batch_tokens")]
    [True, True, False]
    """
    return _NAME.search(name) is not None


def mask_text(text: str) -> str:
    """The text with its secrets replaced by `<masked>`.

    >>> mask_text("fetch https://me:pw@host/x with api_key: abc and batch_tokens: 4096")
    'fetch https://<masked>@host/x with api_key: <masked> and batch_tokens: 4096'
    """
    text = _ADDRESS.sub(rf"\g<scheme>{MASK}@", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    text = _SHAPES.sub(MASK, text)
    return _ASSIGNED.sub(_mask_value, text)


def mask_arguments(arguments: Sequence[str]) -> list[str]:
    """The words of a command line with their secrets replaced by `<masked>`.

    >>> mask_arguments(["train", "a.yaml", "--token", "abc", "--api-key=def", "x.secret=1"])
    ['train', 'a.yaml', '--token', '<masked>', '--api-key=<masked>', 'x.secret=<masked>']
    """
    masked = []
    value_follows = False
    for word in arguments:
        flag = word.startswith("-") and len(word) > 1
        if value_follows and not word.startswith("--"):
            masked.append(MASK)
            value_follows = False
            continue
        name, equals, _ = word.partition("=")
        if equals and names_a_secret(name):
            masked.append(f"{name}={MASK}")
        else:
            masked.append(mask_text(word))
        value_follows = flag and not equals and names_a_secret(name)
    return masked


def _mask_value(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    if not names_a_secret(name) or value in ("null", "~", '""', "''"):
        return found[0]
    return f"{name}{found['sign']}{MASK}"
