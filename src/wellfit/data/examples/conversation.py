"""A row that holds a conversation, in any of its usual forms → the messages."""

from __future__ import annotations

import json
from typing import Any

from wellfit.data.examples.chat import Chat
from wellfit.data.examples.files import BadRowError, Row

HOLDERS = ("messages", "conversations", "conversation", "chat", "dialogue")
ROLES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "bot": "assistant", "model": "assistant",
    "chatgpt": "assistant", "function_call": "assistant",
    "system": "system", "tool": "tool", "observation": "tool", "function": "tool",
    "developer": "developer",
}  # fmt: skip
"""What files call a speaker → what templates call it."""


def conversation_of(row: Row, holder: str, system: str, tools: str) -> Chat:
    """A row and the columns of its messages, system text and tools → the conversation.

    Messages are `{role, content}`, or `{from, value}` as ShareGPT has them. Raises BadRowError.
    """
    listed = row.get(holder)
    if isinstance(listed, str):
        listed = _json(listed, holder)
    if not isinstance(listed, list) or not listed:
        raise BadRowError(f"the column {holder!r} holds no list of messages")
    messages = [_message(one, number) for number, one in enumerate(listed)]
    if text := _text(row.get(system)) if system else "":
        if messages[0]["role"] == "system":
            raise BadRowError(f"the column {system!r} and the first message are both the system's")
        messages.insert(0, {"role": "system", "content": text})
    given = row.get(tools) if tools else None
    if isinstance(given, str) and given.strip():
        given = _json(given, tools)
    told = json.dumps(given, ensure_ascii=False, sort_keys=True) if given else ""
    return Chat(json.dumps(messages, ensure_ascii=False), told)


def pair(source: str, target: str, system: str) -> Chat:
    """A source, its target and a system text, or none → the conversation of these."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": source}, {"role": "assistant", "content": target}]
    return Chat(json.dumps(messages, ensure_ascii=False))


def _message(one: Any, number: int) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise BadRowError(f"message {number + 1} is a {type(one).__name__}, not an object")
    spoken_by = one.get("role", one.get("from"))
    role = ROLES.get(str(spoken_by).lower())
    if role is None:
        raise BadRowError(
            f"message {number + 1} is spoken by {spoken_by!r}, and known are "
            f"{', '.join(sorted(set(ROLES.values())))}"
        )
    content = one.get("content", one.get("value"))
    more = {key: one[key] for key in ("tool_calls", "name", "tool_call_id") if one.get(key)}
    if content is None and "tool_calls" not in more:
        raise BadRowError(f"message {number + 1} has no content")
    return {"role": role, "content": _text(content), **more}


def _text(value: Any) -> str:
    """Text as it is, or its parts together where a message has several."""
    if isinstance(value, list):
        parts = [one.get("text") if isinstance(one, dict) else one for one in value]
        if not all(isinstance(part, str) for part in parts):
            raise BadRowError("a message has parts that are no text")
        return "".join(str(part) for part in parts)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRowError(f"a message's content is a {type(value).__name__}, not a text")
    return value


def _json(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as fault:
        raise BadRowError(f"the column {column!r} holds text that is not JSON: {fault}") from fault
