"""MinHash and banding against brute force; what is dropped, and the traps of it."""

from __future__ import annotations

import gzip
import json
import random
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from wellfit.data.dedup import near
from wellfit.data.dedup.exact import digest, drop_exact
from wellfit.data.dedup.shingles import shingle_hashes, shingles

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
PAIRS = SHARED / "data" / "dedup" / "pep_revision_pairs.jsonl.gz"


def brute(text: str, words: int) -> set[tuple[str, ...]]:
    """The definition, by the regular expression."""
    found = re.findall(r"\w+", text.lower())
    last = max(1, len(found) - words + 1) if found else 0
    return {tuple(found[i : i + words]) for i in range(last)}


def brute_similarity(one: str, two: str, words: int) -> float:
    a, b = brute(one, words), brute(two, words)
    return len(a & b) / len(a | b) if a | b else 0.0


def planted(seed: int) -> list[str]:
    """240 texts of 3 to 300 words, a third of them edited copies of others; some odd ones."""
    draw = random.Random(seed)
    words = ["alpha", "Βήτα", "naïve", "x_1", "42", "don't", "rot", "漢字"]
    words += [f"w{i}" for i in range(400)]
    texts = [" ".join(draw.choices(words, k=draw.randint(3, 300))) for _ in range(160)]
    for _ in range(80):
        copy = draw.choice(texts[:160]).split(" ")
        for _ in range(draw.randint(0, max(1, len(copy) // 12))):
            copy[draw.randrange(len(copy))] = draw.choice(words)
        texts.append(draw.choice([" ", "\n", ", "]).join(copy))
    return [*texts, "", "   \n", "!!!", "one", "ONE.", "two words", "Straße İstanbul"]


@pytest.mark.parametrize("words", [1, 3, 5])
def test_shingles_are_the_definition(words: int) -> None:
    """Hashed sets have the sizes of the brute-force sets, alone and pairwise.

    Fails when shingles cross texts (drop the space that joins them) or when short texts are lost.
    """
    texts = planted(1)
    hashes, bounds = shingle_hashes(texts, words)
    whole = [set(brute(text, words)) for text in texts]
    for place, text in enumerate(texts):
        mine = hashes[bounds[place] : bounds[place + 1]]
        assert len(set(mine.tolist())) == len(whole[place]), text
        assert np.array_equal(np.unique(mine), shingles(text, words))
    assert len(set(hashes.tolist())) == len(set().union(*whole))


def test_similarity_is_exact() -> None:
    """Equals brute-force Jaccard for every pair. Fails when the union is replaced by the larger."""
    texts = planted(2)[200:]
    for one, two in combinations(texts, 2):
        assert near.similarity(one, two, 3) == brute_similarity(one, two, 3)


def test_groups_do_not_change_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts hashed together or one by one: the same. Fails when a hash depends on the place."""
    texts = planted(3)
    together, _ = shingle_hashes(texts, 4)
    apart = np.concatenate([shingle_hashes([text], 4)[0] for text in texts])
    assert np.array_equal(together, apart)
    monkeypatch.setattr("wellfit.data.dedup.shingles._CHARACTERS_AT_ONCE", 100)
    assert np.array_equal(shingle_hashes(texts, 4)[0], together)


def test_all_pairs_are_found() -> None:
    """On planted data, every pair at or above 0.5 by brute force is found, and no other.

    Fails with BANDS = 8, and when a band's key leaves out one of its rows' order.
    """
    for seed in (4, 5):
        texts = planted(seed)
        sets = [brute(text, 5) for text in texts]
        expected = {
            (i, j): value
            for (i, one), (j, two) in combinations(enumerate(sets), 2)
            if (either := len(one | two)) and (value := len(one & two) / either) >= 0.5
        }
        assert len(expected) > 40
        found = {(i, j): value for i, j, value in near.verified_pairs(texts, 5, 0.5)}
        assert found == expected


def test_signature_estimates_similarity() -> None:
    """The share of equal places estimates Jaccard within 5 standard errors for a hundred pairs.

    Fails when the xor and the factor are the same for every permutation.
    """
    draw = random.Random(6)
    for _ in range(100):
        words = [f"v{draw.randrange(10**6)}" for _ in range(600)]
        cut = draw.randrange(50, 300)
        one, two = " ".join(words[:400]), " ".join(words[cut : cut + 300])
        prints = near.signatures([one, two], 2)
        estimate = float((prints[0] == prints[1]).mean())
        exact = near.similarity(one, two, 2)
        error = (exact * (1 - exact) / prints.shape[1]) ** 0.5
        assert abs(estimate - exact) < 5 * error + 1e-9


@pytest.mark.skipif(not PAIRS.is_file(), reason="shared data are not beside the checkout")
def test_real_revisions() -> None:
    """240 labelled pairs of Python enhancement proposals: similarity as recorded; candidates.

    Every pair at 0.5 and above is a candidate, hardly any pair of different texts is. Fails when
    words keep their capitals, and with bands of 16 rows.
    """
    with gzip.open(PAIRS, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    counts = {"found": 0, "missed": 0, "needless": 0, "different": 0}
    for row in rows:
        value = near.similarity(row["text_a"], row["text_b"], 5)
        assert value == pytest.approx(row["jaccard_word5"], abs=5e-5)
        keys = near.band_keys(near.signatures([row["text_a"], row["text_b"]], 5))
        candidate = bool((keys[0] == keys[1]).any())
        if row["label"] == "near_duplicate":
            counts["found" if candidate and value >= 0.5 else "missed"] += 1
        elif row["label"] == "different":
            counts["different"] += 1
            counts["needless"] += candidate
    assert counts == {"found": 116, "missed": 0, "needless": 0, "different": 100}


def test_chain_keeps_both_ends() -> None:
    """A~B~C with A and C different: only B goes. Fails when clusters are dropped to one."""
    chain = [("a", "b", 0.85), ("b", "c", 0.85)]
    decided = near.drop_near(chain, "abc", 0.8, dict.fromkeys("abc", "s"), 1.0)
    assert decided.dropped == {"b": ("a", 0.85)}


def test_dropped_is_always_near_a_kept_one() -> None:
    """Random pairs: each dropped document has a pair at the threshold with a kept one, each kept
    one has none with an earlier kept one unless spared. Fails when transitive drops come back.
    """
    draw = random.Random(7)
    for _ in range(50):
        ids = [f"d{i}" for i in range(40)]
        pairs = [
            (one, two, round(draw.uniform(0.5, 1), 3))
            for one, two in combinations(ids, 2)
            if draw.random() < 0.08
        ]
        order = draw.sample(ids, len(ids))
        sources = {name: draw.choice("pq") for name in ids}
        share = draw.choice([0.1, 0.5, 1.0])
        decided = near.drop_near(pairs, order, 0.8, sources, share)
        value = {frozenset(pair[:2]): pair[2] for pair in pairs}
        for name, (partner, similarity) in decided.dropped.items():
            assert partner not in decided.dropped
            assert order.index(partner) < order.index(name)
            assert value[frozenset((name, partner))] == similarity >= 0.8
        kept = [name for name in order if name not in decided.dropped]
        for one, two in combinations(kept, 2):
            if value.get(frozenset((one, two)), 0) >= 0.8:
                assert two in decided.spared or one in decided.spared
        for source in "pq":
            mine = [name for name in ids if sources[name] == source]
            assert sum(name in decided.dropped for name in mine) <= share * len(mine)


def test_cap_spares_the_least_similar() -> None:
    """Ten copies of one text in a source of eleven, at most half may go: five, the nearest."""
    ids = [f"d{i:02d}" for i in range(11)]
    pairs = [("d00", name, 0.99 - 0.01 * place) for place, name in enumerate(ids[1:])]
    decided = near.drop_near(pairs, ids, 0.8, dict.fromkeys(ids, "s"), 0.5)
    assert sorted(decided.dropped) == ids[1:6]
    assert sorted(decided.spared) == ids[6:]


def test_shared_header_is_no_duplicate() -> None:
    """A licence of 80 words above files of 400 different words: candidates perhaps, never pairs."""
    draw = random.Random(8)
    header = " ".join(f"licence{i}" for i in range(80))
    texts = [
        header + "\n" + " ".join(f"n{draw.randrange(10**6)}" for _ in range(400)) for _ in range(60)
    ]
    assert near.verified_pairs(texts, 5, 0.5) == []


def test_boilerplate_stays_linear_and_goes() -> None:
    """1,000 copies of one text: pairs grow with the number of copies, and all but one go."""
    copies = [f"the same words in every file of them all {'!' * (i % 7)}" for i in range(1000)]
    pairs = near.candidates(near.band_keys(near.signatures(copies, 5)))
    assert len(pairs) < 1000 * (near.BUCKET_WINDOW + 1)
    ids = [f"{i:04d}" for i in range(1000)]
    named = [(ids[i], ids[j], 1.0) for i, j in pairs.tolist()]
    decided = near.drop_near(named, ids, 0.8, dict.fromkeys(ids, "s"), 1.0)
    assert len(decided.dropped) == 999


def test_texts_without_words() -> None:
    """Nothing, blanks and signs alone are nobody's near duplicate; one word is a shingle."""
    texts = ["", "", "  ", "!?", "!?", "one", "One!"]
    assert near.has_words(near.signatures(texts, 5)).tolist() == [False] * 5 + [True] * 2
    assert near.verified_pairs(texts, 5, 0.5) == [(5, 6, 1.0)]
    assert near.similarity("", "", 5) == 0.0
    assert near.verified_pairs([], 5, 0.5) == []
    assert near.band_keys(near.signatures([], 5)).shape == (0, near.BANDS)


def test_exact_duplicates_keep_the_first() -> None:
    """Same digest, same text: the first in order stays.

    Breaks when the later one stays, or digests are taken of stripped texts.
    """
    texts = ["a", "b", "a", "a ", "b"]
    assert drop_exact(list("vwxyz"), [digest(text) for text in texts]) == {"x": "v", "z": "w"}
