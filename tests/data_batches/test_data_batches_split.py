"""What is held out: whole families, by content, as much as asked; leakage is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from wellfit.data.dedup.exact import digest
from wellfit.data.leakage import Leakage, Ngrams, distinct_ngrams, hold_out, leakage
from wellfit.data.split import assign, families
from wellfit.errors import DataError


def words(seed: int, count: int) -> str:
    draw = random.Random(seed)
    return " ".join(f"u{draw.randrange(10**7)}" for _ in range(count))


def leak(held_out: list[tuple[str, str]], train: list[str]) -> Leakage:
    named = zip(
        [name for name, _ in held_out], distinct_ngrams([t for _, t in held_out]), strict=True
    )
    return leakage(list(named), distinct_ngrams(train))


def ngrams_of(texts: Sequence[str]) -> Ngrams:
    found = distinct_ngrams(texts)
    return lambda numbers: [found[number] for number in numbers]


def test_families_are_transitive_and_keep_parts_together() -> None:
    """Links reach through; parts of one file belong together; weak pairs and strangers do not."""
    ids = list("abcdefg")
    pairs = [("a", "b", 0.5), ("b", "c", 0.9), ("d", "e", 0.49), ("a", "unknown", 1.0)]
    together = ["", "", "", "", "file", "file", ""]
    assert families(ids, pairs, 0.5, together) == [0, 0, 0, 1, 2, 2, 3]


def test_split_is_content_not_order() -> None:
    """Shuffled documents, the same held-out digests, no family torn, shares at least as asked.

    Fails when families are taken in the order of their numbers.
    """
    draw = random.Random(0)
    count = 400
    digests = [digest(str(i)) for i in range(count)]
    sizes = [draw.randint(50, 5000) for _ in range(count)]
    family = [draw.randrange(150) for _ in range(count)]
    chosen = None
    for _ in range(5):
        order = draw.sample(range(count), count)
        numbers: dict[int, int] = {}  # families are numbered as they appear, as in the build
        side = assign(
            [numbers.setdefault(family[i], len(numbers)) for i in order],
            [digests[i] for i in order],
            [sizes[i] for i in order],
            0.06,
            0.04,
        )
        found = {digests[i]: where for i, where in zip(order, side, strict=True)}
        assert chosen is None or found == chosen
        chosen = found
    for group in set(family):
        assert len({chosen[digests[i]] for i in range(count) if family[i] == group}) == 1
    for name, share in (("validation", 0.06), ("test", 0.04)):
        held = sum(sizes[i] for i in range(count) if chosen[digests[i]] == name)
        assert share <= held / sum(sizes) <= share * 1.1 + 1e-9


def test_large_families_are_passed_over() -> None:
    """A family of half of all bytes, or of three quarters of what is wanted, is never held out
    while small ones suffice. Fails without the rule of the half.
    """
    for large in (20_000, 1_600):
        sizes = [100] * 200 + [large]
        for salt in range(20):
            digests = [digest(f"{salt}{i}") for i in range(201)]
            assert assign(list(range(201)), digests, sizes, 0.1, 0.1)[200] == "train"


def test_too_few_families() -> None:
    """Two families for three splits: the message says so, and the way out."""
    with pytest.raises(DataError) as fault:
        assign([0, 1, 1], ["x", "y", "z"], [10, 10, 10], 0.06, 0.04)
    message = str(fault.value)
    assert "2 independent families of documents (30 bytes) are too few" in message
    assert "one of them would be empty" in message
    assert "set data.split.validation or data.split.test to 0" in message
    assert assign([0, 1, 1], ["x", "y", "z"], [10, 10, 10], 0.0, 0.0) == ["train"] * 3
    assert sorted(assign([0, 1, 2], ["x", "y", "z"], [900, 10, 10], 0.06, 0.04)) == [
        "test",
        "train",
        "validation",
    ]


def test_planted_copy_is_seen() -> None:
    """Half of a held-out text stands in train: half of its 13-grams leak, and it is named.

    Fails when leakage looks at whole texts only.
    """
    secret, other = words(1, 500), words(2, 500)
    copied = " ".join(secret.split()[:256])
    train = [words(3, 800), words(4, 50) + " " + copied + " " + words(5, 50)]
    found = leak([("secret", secret), ("other", other)], train)
    assert found.ngrams == 2 * 488
    assert found.shared == 244
    assert found.share == 0.25
    assert found.documents == (("secret", 0.5),)
    assert leak([], train).share == 0.0
    assert leak([("secret", secret)], []).share == 0.0


def test_quoted_documents_stay_in_train() -> None:
    """Short texts that long ones quote whole are not near duplicates, yet may not be held out.

    Fails when `hold_out` returns its first split.
    """
    short = [words(100 + i, 60) for i in range(40)]
    long = [" ".join([words(200 + i, 400), *short[i * 2 : i * 2 + 2]]) for i in range(10)]
    own = [words(300 + i, 120) for i in range(40)]
    texts = short + long + own
    ids = [f"d{i}" for i in range(len(texts))]
    digests, sizes = [digest(text) for text in texts], [len(text) for text in texts]
    family = list(range(len(texts)))

    naive = assign(family, digests, sizes, 0.1, 0.1)
    held = [i for i in range(20) if naive[i] != "train"]
    assert held  # the trap is real: some quoted texts would be held out
    split = hold_out(
        ids, ngrams_of(texts), family, digests, sizes, validation=0.1, test=0.1, contained=0.5
    )
    assert split.barred
    assert all(share < 0.5 for _, share in split.leakage.documents)
    for quoted in range(20):
        if split.side[quoted] != "train":  # then the text that quotes it is not in train
            assert split.side[40 + quoted // 2] != "train"
    held_bytes = sum(s for s, where in zip(sizes, split.side, strict=True) if where == "test")
    assert held_bytes >= 0.1 * sum(sizes)


def test_hopeless_leak_is_reported_not_hidden() -> None:
    """Where every document quotes the others, the split stands and the leak is told."""
    common = words(9, 300)
    texts = [common + f" end {i}" for i in range(6)]
    split = hold_out(
        [str(i) for i in range(6)],
        ngrams_of(texts),
        list(range(6)),
        [digest(text) for text in texts],
        [len(text) for text in texts],
        validation=0.1,
        test=0.1,
        contained=0.5,
    )
    assert {"train", "validation", "test"} == set(split.side)
    assert split.leakage.share > 0.9


def test_shares_are_kept_where_not_all_that_leaks_can_be_barred() -> None:
    """Only some documents are free of the common text, too few bytes for the asked shares: then
    as many of the leaking ones are barred as can be, and the rest is told.

    Fails when all leaking families are barred although the shares are not reached any more, and
    when none is barred any more where not all can be.
    """
    common = words(9, 300)
    texts = [f"{common} {words(20 + i, 20)}" for i in range(41)]
    texts += [words(100 + i, 300) for i in range(4)]
    sizes = [len(text) for text in texts]
    everything = list(range(len(texts)))
    digests = [digest(text) for text in texts]
    split = hold_out(
        [str(i) for i in everything],
        ngrams_of(texts),
        everything,
        digests,
        sizes,
        validation=0.1,
        test=0.1,
        contained=0.5,
    )
    naive = assign(everything, digests, sizes, 0.1, 0.1)
    for side in ("validation", "test"):
        held = sum(size for size, one in zip(sizes, split.side, strict=True) if one == side)
        assert held >= 0.1 * sum(sizes)
    assert naive[41:].count("train") and "train" not in split.side[41:]
    spare = [i for i in everything if split.side[i] == "train" and str(i) not in split.barred]
    assert not spare  # no document is left that could be held out instead
    assert split.barred
    assert any(share >= 0.5 for _, share in split.leakage.documents)
