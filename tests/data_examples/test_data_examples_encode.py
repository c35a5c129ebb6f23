"""What a model is given of an example, and what is asked of it where."""

from __future__ import annotations

import random

import pytest
from example_files import WORDS, sentence

from wellfit.data.examples.encode import END, START, encode, read_before
from wellfit.data.examples.shapes import Answer, Labelled, Question
from wellfit.data.tokens.tokenizer import Tokenizer, train
from wellfit.recipe.schema import Examples
from wellfit.records import CANDIDATE, IGNORED

ANSWER = Examples(train=("x",), longest=64)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    draw = random.Random(5)
    return train([sentence(draw, 50, 90) for _ in range(20)] + WORDS, 330)


def test_an_answer_is_asked_and_ended(tokenizer: Tokenizer) -> None:
    """Labels are the tokens of the target and the separator behind it, each one place earlier.
    Breaks when labels are not shifted, when the source is asked too, and without the end."""
    one = Answer("kara losо", "mitin\nnépé")
    (made,) = encode([one], tokenizer, ANSWER)
    whole = [*made.tokens, made.labels[-1]]
    source = tokenizer.encode(read_before(one.source))
    target = tokenizer.encode(one.target)
    end = tokenizer.separator
    assert whole == [end, *source, *target, end]
    assert made.labels == [IGNORED] * len(source) + [*target, end]


def test_a_source_is_learnt_where_asked(tokenizer: Tokenizer) -> None:
    """Break: ignore `train_on_source`."""
    section = Examples(train=("x",), longest=64, train_on_source=True)
    (made,) = encode([Answer("kara", "loso")], tokenizer, section)
    assert made.labels == [*made.tokens[1:], tokenizer.separator]


def test_a_source_stands_apart_for_an_encoder(tokenizer: Tokenizer) -> None:
    """Break: leave the source in front of the target."""
    section = Examples(train=("x",), longest=64, apart=True)
    (made,) = encode([Answer("kara lo", "mitin")], tokenizer, section)
    end = tokenizer.separator
    assert made.source == [end, *tokenizer.encode(read_before("kara lo"))]
    assert made.tokens == [end, *tokenizer.encode("mitin")]
    assert made.labels == [*tokenizer.encode("mitin"), end]


@pytest.mark.parametrize("apart", [False, True])
def test_what_is_cut_has_no_end(tokenizer: Tokenizer, apart: bool) -> None:
    """A source keeps its beginning; a cut target is never taught to end there. Breaks when the
    separator is put behind a cut target, and when sources keep their end."""
    section = Examples(train=("x",), longest=64, apart=apart, source_max_len=3, target_max_len=2)
    words = " ".join(WORDS)
    (made,) = encode([Answer(words, words)], tokenizer, section)
    source, target = tokenizer.encode(read_before(words)), tokenizer.encode(words)
    assert (made.source or made.tokens)[:4] == [tokenizer.separator, *source[:3]]
    assert [one for one in made.labels if one != IGNORED] == target[:2]
    assert tokenizer.separator not in made.labels and made.cut == ("source", "target")
    (short,) = encode([Answer("", "k")], tokenizer, section)
    assert short.cut == () and short.labels[-1] == tokenizer.separator


def test_a_class_is_asked_at_the_end(tokenizer: Tokenizer) -> None:
    """Where a decoder has read all of it. Break: ask at the first place."""
    section = Examples(train=("x",), longest=64, task="classification", classes=("a", "b"))
    pair, alone = encode(
        [Labelled("kara", "loso", 1), Labelled("kara", None, 0)], tokenizer, section
    )
    end, first, second = tokenizer.separator, tokenizer.encode("kara"), tokenizer.encode("loso")
    assert pair.tokens == [end, *first, end, *second, end] and alone.tokens == [end, *first, end]
    assert pair.labels == [IGNORED] * (len(pair.tokens) - 1) + [1]
    assert alone.labels[-1] == 0


def test_a_span_is_where_its_words_are(tokenizer: Tokenizer) -> None:
    """400 answers of whole words and of pieces of words, in letters of one to three bytes: the
    tokens from START to before END cover the answer and no token more than they must. Breaks when
    the end is the last token instead of the one behind it, and when places count bytes."""
    section = Examples(train=("x",), longest=512, task="span")
    draw = random.Random(3)
    for number in range(400):
        context = sentence(draw, 5, 20)
        start = draw.randrange(len(context))
        end = draw.randint(start + 1, len(context))
        if number % 2 == 0:  # whole words
            words = context.split(" ")
            first = draw.randrange(len(words))
            start = len(" ".join(words[:first])) + (first > 0)
            end = start + len(words[first])
        asked = Question("kara", context, (start, end))
        (made,) = encode([asked], tokenizer, section)
        begin, behind = made.labels.index(START), made.labels.index(END)
        before = len(tokenizer.encode("kara")) + 2
        offsets = tokenizer.offsets(context)[begin - before : behind - before]
        assert offsets[0][0] <= start < offsets[0][1]
        assert offsets[-1][0] < end <= offsets[-1][1]
        assert made.labels[: before - 1] == [IGNORED] * (before - 1)
        others = [*made.labels[before - 1 : begin], *made.labels[begin + 1 : behind]]
        assert set(others) <= {CANDIDATE} and len(made.labels) == len(made.tokens)


def test_without_an_answer_the_border_is_pointed_at(tokenizer: Tokenizer) -> None:
    """Break: give such an example no label."""
    section = Examples(train=("x",), longest=64, task="span")
    (made,) = encode([Question("kara", "loso mi", None)], tokenizer, section)
    border = len(tokenizer.encode("kara")) + 1
    assert made.tokens[border] == tokenizer.separator
    assert (made.labels.index(START), made.labels.index(END)) == (border, border + 1)
