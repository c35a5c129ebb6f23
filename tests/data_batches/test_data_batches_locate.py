"""A token leads to its file, byte for byte: mixed sources, a thousand random tokens."""

from __future__ import annotations

import ast
import codecs
import contextlib
import gzip
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from batch_texts import prose

from wellfit.data.build import build_corpus
from wellfit.data.clean.unicode import unicode
from wellfit.data.corpus import Corpus
from wellfit.data.locate import Place, locate, locate_many
from wellfit.errors import DataError
from wellfit.recipe.schema import Data

ODD = ["caf\u00e9", "cafe\u0301", "na\u00efve", "漢字", "\U0001f600", "it’s", "\u200bzero", "ﬁn"]


def story(seed: int, words: int, odd: bool = True, end: str = "\n") -> str:
    """Text of lines, with characters of one to four bytes and some that cleaning changes."""
    draw = random.Random(seed)
    # Rare characters have no token of their own: theirs begin and end within a character.
    rare = [chr(0x4E00 + draw.randrange(9000)) for _ in range(words)]
    pieces = [
        draw.choice([*ODD, *rare[:4]]) if odd and draw.random() < 0.2 else f"w{draw.randrange(500)}"
        for _ in range(words)
    ]
    return "".join(piece + (end if draw.random() < 0.1 else " ") for piece in pieces)


ENCODINGS = {
    "plain.txt": "utf-8",
    "windows.txt": "utf-8",
    "marked.md": "utf-8",
    "wide.txt": "utf-16-le",
    "western.txt": "cp1252",
    "module.py": "utf-8",
    "latin.py": "iso8859-1",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    tree = root / "tree"
    tree.mkdir()
    (tree / "plain.txt").write_bytes(story(1, 900).encode())
    (tree / "windows.txt").write_bytes(story(2, 900, end="\r\n").encode())
    (tree / "marked.md").write_bytes(codecs.BOM_UTF8 + story(3, 900).encode())
    (tree / "wide.txt").write_bytes(codecs.BOM_UTF16_LE + story(4, 900).encode("utf-16-le"))
    western = story(5, 900, odd=False).replace("w1", "é–w1")
    (tree / "western.txt").write_bytes(western.encode("cp1252"))
    (tree / "module.py").write_bytes(("# é\n" + story(6, 900)).encode())
    latin = "# coding: latin-1\n" + story(7, 900, odd=False).replace("w2", "ü2")
    (tree / "latin.py").write_bytes(latin.encode("latin-1"))
    lines = [json.dumps({"n": i, "text": story(20 + i, 60, end="\r\n")}) for i in range(12)]
    lines += [
        json.dumps({"text": story(40 + i, 60), "n": "é"}, ensure_ascii=False) for i in range(12)
    ]
    (root / "lines.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with gzip.open(root / "packed.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": story(60 + i, 80)}) + "\n" for i in range(12))
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": [story(80 + i, 80) for i in range(12)]})
    pq.write_table(table, root / "table.parquet")
    return root


@pytest.fixture(scope="module")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    names = ("tree", "lines.jsonl", "packed.jsonl.gz", "table.parquet")
    data = Data.model_validate(
        {
            "sources": [{"path": str(sources / name)} for name in names],
            "filters": [],
            "split": {"validation": 0.1, "test": 0.1},
            "tokenizer": {"vocabulary_size": 500},
            "workers": 1,
        }
    )
    return build_corpus(data, name="mixed", folder=tmp_path_factory.mktemp("built"))


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def as_read(place: Place) -> str:
    """What the file says at the place, by this test's own means."""
    path = Path(place.path)
    raw = content(path)[place.start_byte : place.end_byte]
    if ".jsonl" in path.name:
        return str(json.loads(f'"{raw.decode()}"'))
    if path.name == "topics.py":  # the quotes around the literal are not part of the place
        for quote in ("'", '"', "'''", '"""'):
            with contextlib.suppress(SyntaxError):
                return str(ast.literal_eval(f"({quote}{raw.decode()}{quote})"))
    return raw.decode(ENCODINGS.get(path.name, "utf-8"))


def random_addresses(corpus: Corpus, count: int) -> list[tuple[str, int, str]]:
    """Corpus → split, offset and address of random tokens."""
    draw = random.Random(0)
    shards = draw.choices(corpus.shards(), k=count)
    offsets = [draw.randrange(shard["tokens"]) for shard in shards]
    return [
        (shard["split"], offset, f"{shard['name']}:{offset}")
        for shard, offset in zip(shards, offsets, strict=True)
    ]


def stands_there(place: Place) -> bool:
    """Whether the file's bytes at the place, read by its format's rules, hold the token's text.

    Where cleaning changed something there, the cleaner is asked what becomes of those bytes.
    """
    raw = content(Path(place.path))[place.start_byte : place.end_byte]
    if place.exact:
        return raw == place.text != b""
    found = as_read(place)
    cleaned = unicode(found, "code" if place.path.endswith(".py") else "text")
    return place.text in found.encode() or place.text in cleaned.encode()


def test_a_thousand_random_tokens(built: Corpus, sources: Path) -> None:
    """Every token stands in its file at the bytes and in the line that are told, and is called
    exact where those bytes are the token's: never for an escape or a foreign encoding.

    Fails when edits are not applied (cleaned places taken for places in the file), when bytes are
    counted in characters, when the separator is counted as a token of its document, and when
    `exact` means only that cleaning changed nothing.
    """
    addresses = random_addresses(built, 1000)
    pieces = built.tokenizer().token_bytes()
    seen: Counter[str] = Counter()
    exact: Counter[str] = Counter()
    escaped = within_character = 0
    places = locate_many(built.folder, [address for *_, address in addresses])
    for (split, offset, _), place in zip(addresses, places, strict=True):
        assert place.token == built.tokens(split)[offset]
        assert place.text == pieces[place.token]
        assert place.text in place.clean_text.encode()
        path = Path(place.path)
        assert path.is_file() and path.is_relative_to(sources)
        seen[path.name] += 1
        exact[path.name] += place.exact
        within_character += place.exact and place.text != place.clean_text.encode()
        if path.suffix == ".parquet":
            assert place.start_byte is None and place.row is not None
            import pyarrow.parquet as pq

            assert place.read_text in pq.read_table(path)["text"][place.row].as_py()
            assert not place.exact
            continue
        assert place.start_byte is not None and place.row is None
        assert stands_there(place), place
        raw = content(path)
        if not place.exact:
            assert as_read(place) == place.read_text
            escaped += b"\\u" in raw[place.start_byte : place.end_byte]
        before = raw[: place.start_byte].decode(ENCODINGS.get(path.name, "utf-8"), "replace")
        assert place.line == 1 + before.count("\n")
    assert set(seen) == {*ENCODINGS, "lines.jsonl", "packed.jsonl.gz", "table.parquet"}
    assert exact["wide.txt"] == 0 and escaped > 10 and within_character > 10
    utf_8 = [name for name, encoding in ENCODINGS.items() if encoding == "utf-8"]
    assert sum(exact[name] for name in utf_8) > 0.8 * sum(seen[name] for name in utf_8)


@pytest.mark.slow
def test_a_thousand_random_tokens_of_the_standard_library(tmp_path: Path) -> None:
    """1,000 of 1,000 tokens of real code and documentation stand where they are said to.

    Fails when the gap between two string literals of `topics.py` is not counted.
    """
    data = Data.model_validate({"sources": [{"path": "python-stdlib"}]})
    corpus = build_corpus(data, name="library", folder=tmp_path / "corpus")
    addresses = random_addresses(corpus, 1000)
    found = exact = 0
    for place in locate_many(corpus.folder, [address for *_, address in addresses]):
        found += stands_there(place)
        exact += place.exact
    assert found == 1000
    assert exact > 900


def test_every_token_of_a_split_is_in_order(built: Corpus) -> None:
    """All tokens of a split, one after the other: within a document places never go back, and
    exact ones of an uncleaned stretch follow one another without a gap.
    """
    last: Place | None = None
    count = len(built.tokens("validation"))
    names = [shard["name"] for shard in built.shards() if shard["split"] == "validation"]
    for place in locate_many(built.folder, (f"{names[0]}:{i}" for i in range(count))):
        if last and last.document == place.document and place.start_byte is not None:
            assert last.start_byte is not None and last.end_byte is not None
            assert last.start_byte <= place.start_byte
            if last.exact and place.exact and ENCODINGS.get(Path(place.path).name) == "utf-8":
                assert last.end_byte <= place.start_byte
        last = place


def test_separator_and_context(built: Corpus) -> None:
    """The first token of a shard is a separator: no bytes, where its document begins."""
    place = locate(built.folder, "train-00000:0")
    assert (place.token, place.text, place.clean_text) == (built.separator, b"", "")
    assert place.before == "" and len(place.after) == 40
    following = locate(built.folder, "train-00000.bin:1")
    assert following.document == place.document
    assert place.after.startswith(following.clean_text)


@pytest.mark.parametrize(
    ("address", "messages"),
    [
        ("nonsense", ["'nonsense' is no place in a shard", "Write SHARD:OFFSET", "train-00000:0"]),
        ("train-00000", ["is no place in a shard"]),
        ("train-00000:-1", ["is no place in a shard"]),
        ("train-00009:1", ["there is no shard train-00009", "There are: test-00000, train-00000"]),
        ("train-00000:99999999", ["none at 99999999", "Offsets go from 0 to"]),
    ],
)
def test_bad_addresses(built: Corpus, address: str, messages: list[str]) -> None:
    """Each wrong address: what is wrong with it and what there is."""
    with pytest.raises(DataError) as fault:
        locate(built.folder, address)
    for message in messages:
        assert message in str(fault.value)


def _one_file(folder: Path, **settings: Any) -> tuple[Path, Corpus]:
    source = folder / "texts"
    source.mkdir()
    for number in range(8):
        (source / f"{number}.txt").write_text(story(500 + number, 300), encoding="utf-8")
    data = {
        "sources": [{"path": str(source)}],
        "filters": [],
        "split": {"validation": 0, "test": 0},
        "tokenizer": {"vocabulary_size": 300},
        "workers": 1,
    }
    corpus = build_corpus(
        Data.model_validate({**data, **settings}), name="one", folder=folder / "corpus"
    )
    return source, corpus


def test_changed_and_missing_files(tmp_path: Path) -> None:
    """A file changed since the build is refused; one that is gone is told by its relative path.

    Fails when only the size is compared: the change keeps it.
    """
    _, corpus = _one_file(tmp_path)
    place = locate(corpus.folder, "train-00000:5")
    path = Path(place.path)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + b"?")
    with pytest.raises(DataError) as fault:
        locate(corpus.folder, "train-00000:5")
    assert str(path) in str(fault.value) and "has changed since the corpus was built" in str(
        fault.value
    )
    path.unlink()
    gone = locate(corpus.folder, "train-00000:5")
    assert (gone.path, gone.start_byte, gone.line, gone.exact) == (path.name, None, None, False)
    assert gone.text == place.text and gone.clean_text == place.clean_text
    path.write_bytes(raw)
    assert locate(corpus.folder, "train-00000:5") == place


def test_run_folder_leads_to_its_corpus(tmp_path: Path) -> None:
    """A run folder with `corpus.json` is as good as the corpus."""
    _, corpus = _one_file(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "corpus.json").write_text(json.dumps({"folder": str(corpus.folder)}))
    assert locate(run, "train-00000:7") == locate(corpus.folder, "train-00000:7")


def test_foreign_tokenizer_leads_to_characters(tmp_path: Path) -> None:
    """A tokenizer that is not byte-level: places by its offsets, and never called exact."""
    pieces = sorted(set("".join(story(500 + number, 300) for number in range(8))))
    described = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": {"type": "Fuse"},
        "added_tokens": [{"id": 1, "content": "</s>", "special": True, "single_word": False,
                          "lstrip": False, "rstrip": False, "normalized": False}],
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": False,
                  "vocab": [["<unk>", 0.0], ["</s>", 0.0], *([piece, -3.0] for piece in pieces)]},
    }  # fmt: skip
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(described), encoding="utf-8")
    _, corpus = _one_file(tmp_path, tokenizer={"file": str(file)})
    assert corpus.separator == 1
    for place in locate_many(corpus.folder, (f"train-00000:{i}" for i in range(1, 200))):
        assert not place.exact
        assert content(Path(place.path))[place.start_byte : place.end_byte].decode() == (
            place.read_text
        )
        assert re.fullmatch(r".|\s", place.clean_text) or not place.text


def test_stretch_of_real_prose(tmp_path: Path) -> None:
    """Plain ASCII without edits: byte, line and column are those of the file's own text."""
    source = tmp_path / "s"
    source.mkdir()
    text = "\n".join(re.sub(r"[^ -~]", "", prose(i, 12)) for i in range(200))
    (source / "a.txt").write_text(text)
    data = Data.model_validate(
        {
            "sources": [{"path": str(source)}],
            "filters": [],
            "split": {"validation": 0, "test": 0},
            "tokenizer": {"vocabulary_size": 300},
            "workers": 1,
        }
    )
    corpus = build_corpus(data, name="a", folder=tmp_path / "c")
    place_of_next = 0
    for place in locate_many(corpus.folder, (f"train-00000:{i}" for i in range(1, 900))):
        assert place.exact and place.start_byte == place_of_next
        place_of_next = place.start_byte + len(place.text)
