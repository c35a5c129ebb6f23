"""Any text goes to tokens and exactly back; special names in a text are text."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from batch_texts import prose
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.data.tokens.tokenizer import SEPARATOR, Tokenizer, load, train
from wellfit.errors import DataError

GPT2 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tokenizer" / "gpt2"


def test_form(tokenizer: Tokenizer) -> None:
    """Separator 0, every byte there, byte level."""
    assert (tokenizer.separator, tokenizer.separator_text) == (0, SEPARATOR)
    assert 300 < tokenizer.vocabulary_size <= 400
    assert tokenizer.byte_level
    pieces = tokenizer.token_bytes()
    assert pieces[0] == b""
    assert {piece for piece in pieces if len(piece) == 1} == {bytes([i]) for i in range(256)}
    assert len(set(pieces)) == len(pieces) == tokenizer.vocabulary_size


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_round_trip(text: str) -> None:
    """Any text comes back, and its tokens' bytes are its bytes.

    Fails when the byte alphabet is left to what the training text has.
    """
    tokenizer = _tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    pieces = tokenizer.token_bytes()
    assert b"".join(pieces[i] for i in ids) == text.encode()
    assert tokenizer.separator not in ids
    for (low, high), token in zip(tokenizer.offsets(text), ids, strict=True):
        assert pieces[token] in text[low:high].encode()


_MADE: list[Tokenizer] = []


def _tokenizer() -> Tokenizer:
    if not _MADE:
        _MADE.append(train([prose(seed, 300) for seed in range(20)], 400))
    return _MADE[0]


def test_special_names_in_a_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A document that speaks of `<|endoftext|>` holds no separator, before and after saving.

    Fails when `encode_special_tokens` is left off.
    """
    text = f"a {SEPARATOR} b{SEPARATOR}{SEPARATOR}<|endof"
    file = tmp_path / "tokenizer.json"
    file.write_text(tokenizer.json(), encoding="utf-8")
    trained_on_it = train([text * 50], 500)
    for one in (tokenizer, load(file), trained_on_it):
        ids = one.encode(text)
        assert one.separator not in ids
        assert one.decode(ids) == text
    more = tokenizer.backend.from_str(tokenizer.json())
    more.add_special_tokens(["<|user|>"])
    more.save(str(file))
    assert load(file).encode("say <|user|>") == tokenizer.encode("say <|user|>")


def test_model_that_yields_the_separator(tmp_path: Path) -> None:
    """A Unigram model has `</s>` among its pieces: a text with it is cut inside, not ended.

    Fails when `encode_batch` does not look for the separator.
    """
    pieces = [["<unk>", 0.0], ["</s>", 0.0]] + [[c, -5.0] for c in "abc </s>"]
    described = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
    }  # fmt: skip
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(described), encoding="utf-8")
    tokenizer = load(file)
    assert tokenizer.separator == 1
    assert 1 in tokenizer.encode_raw("a</s>b")
    text = "a</s>b c</s>"
    assert tokenizer.separator not in tokenizer.encode(text)
    offsets = tokenizer.offsets(text)
    assert "".join(text[low:high] for low, high in offsets) == text
    assert not tokenizer.byte_level


def test_training_is_deterministic() -> None:
    """One thread or two, texts in another order, another process: the same tokenizer.

    Fails when training samples its texts, or takes them up to a number of bytes.
    """
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from batch_texts import prose\n"
        "from wellfit.data.tokens.tokenizer import train\n"
        "import hashlib, random\n"
        "texts = [prose(seed, 400) for seed in range(30)]\n"
        "random.Random(int(sys.argv[2])).shuffle(texts)\n"
        "print(hashlib.sha256(train(texts, 500).json().encode()).hexdigest())"
    )
    found = set()
    for shuffle, threads in ((1, "1"), (2, "2"), (3, "2")):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": str(shuffle)}
        command = [sys.executable, "-c", code, str(Path(__file__).parent), str(shuffle)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(run.stdout.strip())
    assert len(found) == 1


def test_small_text_learns_fewer_entries() -> None:
    """A vocabulary that the text cannot fill stays smaller, and is told as it is."""
    tokenizer = train(["ab ab ab"], 1000)
    assert 257 <= tokenizer.vocabulary_size < 265


@pytest.mark.skipif(not GPT2.is_dir(), reason="shared data are not beside the checkout")
def test_foreign_byte_level(tmp_path: Path) -> None:
    """GPT-2's own vocabulary as a tokenizer.json: its separator, exact bytes, the same ids."""
    from tokenizers import ByteLevelBPETokenizer

    files = {path.name: path for path in GPT2.iterdir()}
    vocabulary = next(path for name, path in files.items() if name.endswith(".json"))
    merges = next(path for name, path in files.items() if name.endswith((".txt", ".bpe")))
    backend = ByteLevelBPETokenizer(str(vocabulary), str(merges))
    file = tmp_path / "tokenizer.json"
    backend.save(str(file))
    tokenizer = load(file)
    assert tokenizer.byte_level
    assert (tokenizer.separator, tokenizer.vocabulary_size) == (50256, 50257)
    draw, pieces = random.Random(3), tokenizer.token_bytes()
    for _ in range(50):
        text = "".join(chr(draw.choice([32, 97, 233, 0x6F22, 0x1F600, 10])) for _ in range(40))
        text += prose(draw.randrange(99), 20)
        ids = tokenizer.encode(text)
        assert ids == backend.encode(text).ids
        assert tokenizer.decode(ids) == text
        assert b"".join(pieces[i] for i in ids) == text.encode()


@pytest.mark.parametrize("content", ["", "{", '{"model": 1}', "\x00\x01"])
def test_no_tokenizer(tmp_path: Path, content: str) -> None:
    """Broken files: the message names the file and the way out."""
    file = tmp_path / "t.json"
    file.write_text(content)
    with pytest.raises(DataError) as fault:
        load(file)
    assert str(file) in str(fault.value)
    assert "no tokenizer.json that the tokenizers library can read" in str(fault.value)
    assert "leave it empty to train one" in str(fault.value)


def test_missing_file_and_missing_separator(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """No file: said so. No token to stand between documents: the names that would do."""
    with pytest.raises(DataError, match="there is no such file"):
        load(tmp_path / "none.json")
    described = json.loads(tokenizer.json())
    described["added_tokens"] = []
    described["model"]["vocab"] = {
        ("other" if token == SEPARATOR else token): number
        for token, number in described["model"]["vocab"].items()
    }
    file = tmp_path / "t.json"
    file.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(DataError) as fault:
        load(file)
    assert "no token that can stand between documents" in str(fault.value)
    assert "<|endoftext|>" in str(fault.value) and "</s>" in str(fault.value)


def test_truncation_and_templates_are_taken_off(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A tokenizer.json that cuts at 4 tokens and adds others around: neither reaches the corpus."""
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import TemplateProcessing

    backend = Backend.from_str(tokenizer.json())
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    backend.post_processor = TemplateProcessing(
        single=f"{SEPARATOR} $A {SEPARATOR}", special_tokens=[(SEPARATOR, 0)]
    )
    file = tmp_path / "t.json"
    backend.save(str(file))
    text = prose(1, 30)
    assert load(file).encode(text) == tokenizer.encode(text)
