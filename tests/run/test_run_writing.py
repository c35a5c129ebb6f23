"""`wellfit generate` and `wellfit chat` as a person and a program use them, on a small real run."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wellfit
from wellfit.errors import RunError, WellfitError
from wellfit.generation.write import Ended, Piece
from wellfit.run.chat import Chat
from wellfit.run.prompting import Turn
from wellfit.run.writing import drawing, generate_from_run, open_pen, prompts_of_file

Inside = Callable[..., Any]
GREEDY = ("--temperature", "0", "--tokens", "12")


@pytest.fixture
def run(tiny_home: Path) -> Path:
    return tiny_home / "runs" / "tiny"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What a person types, as it comes through a pipe."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_many_prompts_are_written_as_if_alone(
    tiny_home: Path, inside: Inside, tmp_path: Path
) -> None:
    """From the command line, two kinds of files, and Python; in the order they were given.

    Breaks tried: JSON lines in the order in which texts ended; `--prompts` without `--prompt`.
    """
    prompts = ["import ", "def f(", "The", "x"]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    (tmp_path / "p.txt").write_text("\n\n".join(prompts) + "\n")
    single = [
        inside(tiny_home, "generate", "runs/tiny", "--prompt", one, "--seed", "4").out
        for one in prompts
    ]
    for arguments in (
        ["--prompts", str(tmp_path / "p.jsonl")],
        ["--prompts", str(tmp_path / "p.txt")],
        [part for one in prompts for part in ("--prompt", one)],
        ["--prompt", prompts[0], "--prompts", str(tmp_path / "rest.txt")],
    ):
        (tmp_path / "rest.txt").write_text("\n".join(prompts[1:]))
        done = inside(tiny_home, "generate", "runs/tiny", *arguments, "--seed", "4", "--json")
        assert done.status == 0, done.error
        rows = [json.loads(line) for line in done.out.splitlines()]
        assert [row["prompt"] for row in rows] == prompts
        assert [row["prompt"] + row["text"] + "\n" for row in rows] == single
        assert {row["ended_by"] for row in rows} <= {"end", "length"}
        assert all(0 < row["seconds"] < 600 and 0 <= row["tokens"] <= 100 for row in rows)
    plain = inside(tiny_home, "generate", "runs/tiny", *arguments, "--seed", "4")
    assert plain.out == "\n".join(single)
    found = wellfit.generate(tiny_home / "runs" / "tiny", prompts, seed=4)
    assert [one.text for one in found] == [row["text"] for row in rows]
    assert wellfit.generate(tiny_home / "runs" / "tiny", "The", seed=4) == rows[2]["text"]


def test_each_option_changes_what_is_drawn(tiny_home: Path, inside: Inside) -> None:
    """Break tried: the option not passed on, for each of them."""

    def text(*options: str) -> str:
        done = inside(tiny_home, "generate", "runs/tiny", "--prompt", "The ", *options)
        assert done.status == 0, done.error
        return str(done.out)

    usual = text()
    for option in (
        ("--tokens", "3"), ("--seed", "1"), ("--temperature", "0.1"), ("--top-k", "1"),
        ("--top-p", "0.1"), ("--min-p", "0.9"), ("--repetition-penalty", "5"),
        ("--stop", usual[8:10]),
    ):  # fmt: skip
        assert text(*option) != usual, option


def test_a_stop_string_ends_and_is_never_seen(tiny_home: Path, inside: Inside, run: Path) -> None:
    """Taken from the middle of the text, over a border between tokens.

    Breaks tried: its beginning given out; `ended_by` that says length.
    """
    ends = [p for p in generate_from_run(run, ["The "], drawing(seed=2)) if isinstance(p, Ended)]
    whole = ends[0].text
    stop = whole[30:36]
    assert whole.find(stop) == 30
    asked = ("--prompt", "The ", "--seed", "2", "--stop", "NOWHERE", "--stop", stop)
    done = inside(tiny_home, "generate", "runs/tiny", *asked)
    assert done.out == f"The {whole[:30]}\n"
    row = json.loads(inside(tiny_home, "generate", "runs/tiny", *asked, "--json").out)
    assert (row["text"], row["ended_by"]) == (whole[:30], "stop")
    assert row["tokens"] < ends[0].tokens
    sampling = drawing(seed=2, stop=[stop])
    pieces = [p.text for p in generate_from_run(run, ["The "], sampling) if isinstance(p, Piece)]
    assert "".join(pieces) == whole[:30] and len(pieces) > 1


def test_wrong_values_are_named_all_at_once(tiny_home: Path, inside: Inside) -> None:
    done = inside(
        tiny_home, "generate", "runs/tiny", "--prompt", "x", "--min-p", "2", "--top-p", "0",
        "--repetition-penalty", "0", "--tokens", "0", "--seed", "-1", "--stop", "",
        "--temperature", "-1", "--top-k", "-1",
    )  # fmt: skip
    assert done.status == 2
    assert done.error == (
        "wellfit: generate: tokens must be from 1 to 100,000; seed must be at least 0 and below "
        "2**63; temperature must be from 0 to 100; top_k must be at least 0; top_p must be above 0 "
        "and at most 1; min_p must be from 0 to 1; repetition_penalty must be above 0 and at most "
        "100; stop must be a text of at least one character\n"
    )
    with pytest.raises(WellfitError, match="min_p does nothing with temperature 0"):
        drawing(min_p=0.1, temperature=0)
    none = inside(tiny_home, "generate", "runs/tiny")
    assert (none.status, none.error) == (
        2, "wellfit: generate: there is no prompt; give --prompt or --prompts\n",
    )  # fmt: skip


def test_files_without_prompts_are_refused(tmp_path: Path) -> None:
    for name, text, said in (
        ("empty.txt", "\n \n", "the file has no prompt"),
        ("a.jsonl", '{"prompt": "x"}\n{"text": "y"}\n', "a.jsonl:2: the line is no JSON object"),
        ("b.jsonl", "words\n", "b.jsonl:1: the line is no JSON object with a text as `prompt`"),
        ("c.jsonl", '{"prompt": 3}\n', "c.jsonl:1: the line is no JSON object"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(WellfitError) as error:
            prompts_of_file(tmp_path / name)
        assert said in str(error.value)
    with pytest.raises(WellfitError, match=r"cannot be read \(No such file or directory\)"):
        prompts_of_file(tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(WellfitError, match=r"cannot be read \(it is not UTF-8 text\)"):
        prompts_of_file(tmp_path / "latin.txt")


def test_a_conversation_through_a_pipe(
    tiny_home: Path, run: Path, inside: Inside, typed: Callable[[str], None]
) -> None:
    """Each answer continues all turns so far; after /reset only the line itself.

    Breaks tried: the answer not kept among the turns; /reset that keeps them; empty lines answered.
    """

    def alone(prompt: str) -> str:
        return wellfit.generate(run, prompt, tokens=12, temperature=0)

    first = alone("def f(")
    second = alone(f"def f(\n{first}\nThe")
    typed("def f(\n\nThe\n/reset\nThe\n/help\n/exit\nnever read\n")
    done = inside(tiny_home, "chat", "runs/tiny", *GREEDY)
    assert done.status == 0, done.error
    assert done.out == (
        f"{first}\n{second}\n(the conversation is forgotten)\n{alone('The')}\n"
        "(/help is no command; there are /reset and /exit)\n"
    )
    assert second != alone("The")
    typed("The")  # the end of the input ends it, after a last line without its end
    assert inside(tiny_home, "chat", "runs/tiny", *GREEDY).out == f"{alone('The')}\n"


def test_ctrl_c_ends_only_the_answer(
    tiny_home: Path, inside: Inside, typed: Callable[[str], None], monkeypatch: Any
) -> None:
    """What was said stays in the conversation, and the next line is answered.

    Break tried: the interrupt not caught, which ends the command with 130.
    """
    write, heard = Chat.answer, []

    def interrupted(self: Chat, line: str) -> Iterator[str]:
        for number, piece in enumerate(write(self, line)):
            yield piece
            if number == 1 and line == "def f(":
                heard.append(self)
                raise KeyboardInterrupt

    monkeypatch.setattr(Chat, "answer", interrupted)
    typed("def f(\nThe\n")
    done = inside(tiny_home, "chat", "runs/tiny", *GREEDY)
    assert done.status == 0
    turns = heard[0].turns
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant"]
    assert done.out == f"{turns[1].text}\n{turns[3].text}\n"


def test_a_full_context_drops_the_oldest_turns_once_told(
    tiny_home: Path, run: Path, inside: Inside, typed: Callable[[str], None]
) -> None:
    """Whole turns, and each with its answer. Breaks tried: nothing dropped; told every time."""
    pen = open_pen(run)
    assert pen.tokenizer is not None
    lines = [f"import number {n}" for n in range(8)]
    talk = Chat(pen, drawing(tokens=12, temperature=0))
    for line in lines:
        list(talk.answer(line))
        shown = talk.turns[talk.forgotten : -1]
        assert shown[0].role == "user" and talk.forgotten % 2 == 0
        text = "\n".join(turn.text for turn in shown)
        assert len(pen.tokenizer.encode(text)) + 1 + 12 <= 64
    assert 0 < talk.forgotten < len(talk.turns) - 2
    typed("\n".join(lines))
    done = inside(tiny_home, "chat", "runs/tiny", *GREEDY)
    assert done.out.count("(the context is full: the oldest turns are left out from now on)") == 1
    answers = [turn.text for turn in talk.turns if turn.role == "assistant"]
    told = done.out.replace(
        "(the context is full: the oldest turns are left out from now on)\n", ""
    )
    assert told == "\n".join(answers) + "\n"
    talk.reset()
    assert (talk.turns, talk.forgotten) == ([], 0)
    list(talk.answer("word " * 200))  # one turn alone is shown, whatever its length
    assert talk.turns[0] == Turn("user", "word " * 200)


def test_a_run_without_a_tokenizer_has_no_words(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wellfit.data.corpus import Corpus

    monkeypatch.setattr(Corpus, "has_tokenizer", property(lambda self: False))
    with pytest.raises(RunError, match="there is nothing to talk in"):
        Chat(open_pen(run), drawing())
    with pytest.raises(WellfitError, match="there is no text to stop at"):
        generate_from_run(run, ["1 2"], drawing(stop=["x"]))
    ends = [p for p in generate_from_run(run, ["1 2"], drawing(tokens=5)) if isinstance(p, Ended)]
    assert all(word.isdecimal() for word in ends[0].text.split())
