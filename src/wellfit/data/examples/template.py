"""A chat template in; messages → the text that a model is trained on, and asked with.

Templates are Jinja, as tokenizers carry them. They run in a sandbox that can neither change what it
is given nor reach anything else, and do not know today's date: equal messages give equal text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from wellfit.errors import DataError

PLAIN = "plain"
"""No template: a source, a line break, the target, and the separator."""
NAMED: dict[str, tuple[str, tuple[str, ...]]] = {
    "chatml": (
        "{% for message in messages %}"
        "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ("<|im_start|>", "<|im_end|>"),
    ),
    "llama3": (
        "<|begin_of_text|>{% for message in messages %}"
        "<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
        "{{ message.content | trim }}<|eot_id|>"
        "{% endfor %}"
        "{% if add_generation_prompt %}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "gemma": (
        "<bos>{% for message in messages %}"
        "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
        "{{ message.content | trim }}<end_of_turn>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    ),
}
"""Templates by name, and the tokens that they are made of."""

Messages = Sequence[Mapping[str, Any]]


class TemplateFaultError(Exception):
    """A template refuses some messages; the message says why, in its own words."""


@dataclass(frozen=True)
class Template:
    """Jinja text, and the tokens that it may name, such as `bos_token`."""

    name: str
    text: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    def render(
        self, messages: Messages, *, answers: bool = False, tools: Sequence[Any] | None = None
    ) -> str:
        """Messages → text; with `answers`, up to where the next answer begins.

        Raises TemplateFaultError where the template does not take them.
        """
        from jinja2 import TemplateError

        try:
            return str(
                self._compiled.render(
                    messages=[dict(one) for one in messages],
                    tools=list(tools) if tools else None,
                    documents=None,
                    add_generation_prompt=answers,
                    **self.tokens,
                )
            )
        except (TemplateError, TypeError, AttributeError, KeyError, ValueError) as fault:
            raise TemplateFaultError(f"the template {self.name} refuses it: {fault}") from fault

    @cached_property
    def _compiled(self) -> Any:
        from jinja2 import TemplateError, nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(Extension):
            """`{% generation %}…{% endgeneration %}`: what a model writes; here only its text."""

            tags = {"generation"}  # noqa: RUF012 (jinja's own convention)

            def parse(self, parser: Any) -> Any:
                line = next(parser.stream).lineno
                body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
                return nodes.Scope(body).set_lineno(line)

        def refuse(text: str) -> None:
            raise TemplateError(text)

        world = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        world.filters["tojson"] = _json
        world.globals["raise_exception"] = refuse
        try:
            return world.from_string(self.text)
        except TemplateError as fault:
            raise DataError(
                f"this is no chat template that Jinja can read: {fault}",
                where=self.name,
                way_out="Name another one as data.examples.template.",
            ) from fault


def template_of(wanted: str, tokenizer_file: str) -> Template | None:
    """`data.examples.template` and `data.tokenizer.file` → the template; None for plain text.

    `auto` takes the one that stands beside the tokenizer's file, where there is one. Raises
    DataError where a named one does not exist.
    """
    folder = Path(tokenizer_file).expanduser().parent if tokenizer_file else None
    tokens = _special_tokens(folder) if folder else {}
    if wanted == PLAIN:
        return None
    if wanted in NAMED:
        return Template(wanted, NAMED[wanted][0], tokens)
    if wanted == "auto":
        text = _beside(folder) if folder else None
        return Template(f"of {folder}", text, tokens) if text else None
    path = Path(wanted).expanduser()
    text = path.read_text(encoding="utf-8") if path.is_file() else _beside(path)
    if path.suffix == ".json" and path.is_file():
        text = _beside(path.parent)
    if not text:
        raise DataError(
            "there is no chat template of that name, nor a file that holds one",
            where=f"data.examples.template = {wanted}",
            way_out=f"Built in are {PLAIN}, {', '.join(NAMED)}; or give a .jinja file, or a folder "
            "with a tokenizer_config.json.",
        )
    return Template(wanted, text, tokens or _special_tokens(path.parent))


def _beside(folder: Path) -> str | None:
    """A tokenizer's folder → the chat template there."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    found = _settings(folder).get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _settings(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _special_tokens(folder: Path) -> dict[str, str]:
    """`bos_token`, `eos_token` and the like, as the tokenizer's folder names them."""
    found = {}
    for name, value in _settings(folder).items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    # Jinja's own escapes signs of HTML, which no template of a model means.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)
