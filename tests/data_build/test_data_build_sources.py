"""Which files a source has, how cleaners repair and filters judge: each on its own."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellfit.data.clean.unicode import unicode
from wellfit.data.edits import apply, edits
from wellfit.data.filter.quality import FILTERS
from wellfit.data.filter.scores import NAMES, Scored, score
from wellfit.data.read.formats import READERS
from wellfit.data.read.plan import inspect, tasks_of
from wellfit.data.read.walk import find
from wellfit.errors import DataError
from wellfit.recipe.schema import Source
from wellfit.records import Document, Origin


def paths_of(path: object, **settings: str) -> list[str]:
    found = find(Source.model_validate({"path": str(path), **settings}))
    return [one.relative for one in found.inputs]


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")


def test_a_tree_gives_its_files_in_order_and_says_what_it_passed_over(tmp_path: Path) -> None:
    """Breaks when a link to a folder above is followed for ever, or ignore rules are not nested."""
    write(
        tmp_path,
        *(
            "b.txt",
            "a.md",
            "src/main.rs",
            "src/gen_pb2.py",
            "src/keep.log.txt",
            "x.png",
            ".hid.txt",
        ),
        *(
            ".git/config.txt",
            "node_modules/a.js",
            "vendor/a.go",
            "vendor/notes.txt",
            "web/a.min.js",
        ),
        *("logs/old.txt", "logs/keep.txt", "deep/cache/c.txt", "deep/er/local.txt", "Makefile"),
    )
    (tmp_path / ".gitignore").write_text("# comment\n/logs/*\n!logs/keep.txt\ncache/\n")
    (tmp_path / "deep" / ".gitignore").write_text("local.txt\n")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    found = find(Source(path=str(tmp_path)))
    assert [one.relative for one in found.inputs] == [
        *("Makefile", "a.md", "b.txt", "logs/keep.txt", "src/keep.log.txt", "src/main.rs"),
        "vendor/notes.txt",
    ]
    formats = {one.relative: one.format for one in found.inputs}
    assert (formats["a.md"], formats["src/main.rs"], formats["b.txt"]) == (
        "markdown",
        "code",
        "text",
    )
    assert found.passed_over == {
        "generated": 1,
        "hidden": 4,
        "ignored": 3,
        "link to a folder above": 1,
        "minified": 1,
        "unknown kind of file (.png)": 1,
        "vendored": 2,
    }


def test_files_globs_and_forced_formats(tmp_path: Path) -> None:
    write(tmp_path, "a/1.txt", "a/2.txt", "b/3.txt", "b/4.log", "c.bin")
    assert paths_of(tmp_path / "*" / "*.txt") == ["a/1.txt", "a/2.txt", "b/3.txt"]
    assert paths_of(tmp_path / "**" / "[13].txt") == ["a/1.txt", "b/3.txt"]
    assert paths_of(tmp_path / "[b]") == ["b/3.txt"]
    assert paths_of(tmp_path / "c.bin") == ["c.bin"]
    assert paths_of(tmp_path / "b", format="text") == ["3.txt", "4.log"]
    with pytest.raises(DataError, match="no file matches") as caught:
        find(Source(path=str(tmp_path / "z*")))
    assert str(tmp_path) in caught.value.way_out


def test_a_minified_script_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("x=1;" * 500)
    (tmp_path / "b.js").write_text("x = 1;\n" * 500)
    inspected = [inspect(one) for one in find(Source(path=str(tmp_path))).inputs]
    assert [one.minified for one in inspected] == [True, False]


def test_the_standard_library_is_healthy_code_and_documentation() -> None:
    """Breaks when test folders are let in, or a filter's limits throw healthy code away."""
    source = Source(path="python-stdlib")
    found = find(source)
    relative = [one.relative for one in found.inputs]
    assert relative == sorted(relative)
    assert "argparse.py" in relative and "json/decoder.py" in relative
    assert not [
        path for path in relative if {"test", "tests", "site-packages"} & set(path.split("/"))
    ]
    assert found.root == Path(sysconfig.get_paths()["stdlib"])
    formats = {one.relative: (one.format, one.domain) for one in found.inputs}
    assert formats["pydoc_data/topics.py"] == ("topics", "documentation")
    assert formats["argparse.py"] == ("code", "code")
    tasks, rejected = tasks_of(source, [inspect(one) for one in found.inputs[::8]])
    assert not rejected
    judged = dropped = 0
    for task in tasks:
        for file, (path, format_, *_, start, end, row) in zip(
            task.files, task.data["entries"], strict=True
        ):
            for document in READERS[format_].read(file.path, path, source, start, end, row):
                assert isinstance(document, Document)
                if document.content_type == "code" and len(document.text) >= 64:
                    judged += 1
                    dropped += any(judge(document.text, "code").values())
    assert judged > 50
    assert dropped == 0


def judge(text: str, content_type: str = "text") -> dict[str, str | None]:
    """Text → what each built-in filter says."""
    origin = Origin("a", 0, len(text))
    scored = Scored("0", text, "s", "d", content_type, "en", origin, score(text))
    return {name: function(scored) for name, function in FILTERS.items()}


def test_each_filter_finds_its_own_fault(prose: Callable[..., str]) -> None:
    """Breaks when a limit of `repetitive` is asked the other way round."""
    healthy = prose(1, 400)
    assert set(judge(healthy).values()) == {None}
    assert judge("too little")["too_short"] == "10 characters, fewer than 64"
    spam = prose(2, 30) + "\n" + "buy this now and save money today for good\n" * 30
    assert "above" in str(judge(spam)["repetitive"])
    table = "\n".join(f"{n} {n * 7} {n * 13} | - | {n}" for n in range(100))
    assert "letter_share" in str(judge(table)["mostly_non_text"])
    assert "long_run_share" in str(judge("QUJDREVGR0hJSktMTU5P" * 40)["mostly_non_text"])
    assert "replacement_share" in str(judge(healthy + "\ufffd" * 80)["mostly_non_text"])
    assert "compressed_share" in str(judge("x = 0\n" * 2_000, "code")["repetitive"])


def test_scores_by_hand() -> None:
    """Breaks when overlapping occurrences are counted twice; numbers worked out by hand."""
    found = score("a b a b a b")
    assert (found["words"], found["characters"], found["lines"]) == (6, 11, 1)
    assert found["top_2gram_share"] == 1.0  # "a b" three times covers all six letters
    assert found["repeated_5gram_share"] == 0.0
    # "one two" stands twice, and its words have 12 of the 18 letters.
    found = score("one two six one two ten")
    assert found["top_2gram_share"] == pytest.approx(12 / 18)
    assert found["letter_share"] == 1.0
    assert score("line\nother\nline\n")["repeated_line_share"] == pytest.approx(4 / 13)
    ten = "a b c d e f g h i j "
    assert score(ten * 2)["repeated_10gram_share"] == 0.5
    assert score("")["compressed_share"] == 1.0


@given(st.text())
def test_scores_hold_for_any_text(text: str) -> None:
    found = score(text)
    assert tuple(found) == NAMES
    shares = [name for name in NAMES if name.endswith("_share") and name != "compressed_share"]
    assert all(0 <= found[name] <= 1 for name in shares)


@pytest.mark.parametrize(
    ("read", "clean"),
    [
        ("cafÃ© â€” naÃ¯ve", "café — naïve"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("\ufeffzero\u200bwidth\xad", "zerowidth"),
        ("bell\x07 tab\t end  \n", "bell tab\t end  \n"),
        ("e\u0301", "é"),
        ("نمی\u200cخواهم 👩\u200d💻", "نمی\u200cخواهم 👩\u200d💻"),
        ("“quoted” – naïve €5", "“quoted” – naïve €5"),
    ],
)
def test_unicode_repairs_prose(read: str, clean: str) -> None:
    """Breaks when joiners go with the other unseen characters, or quotes are 'repaired'."""
    assert unicode(read, "text") == clean


def test_unicode_leaves_code_its_meaning() -> None:
    """Breaks when code is treated as prose: string literals would change."""
    source = "\ufeffx = 'cafÃ© e\u0301 \u200b \x07'\r\n\x0cy = 1\r\n"
    assert unicode(source, "code") == "x = 'cafÃ© e\u0301 \u200b \x07'\n\x0cy = 1\n"


@given(st.text(alphabet=st.characters(codec="utf-8")), st.sampled_from(["text", "code"]))
def test_cleaning_is_idempotent_and_its_edits_lead_back(text: str, content_type: str) -> None:
    clean = unicode(text, content_type)
    assert unicode(clean, content_type) == clean
    assert apply(edits(text, clean), text, clean) == clean
