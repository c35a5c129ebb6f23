"""Parts of documents → verified near-duplicate pairs, through files, whatever the corpus's size.

    parts ─▶ band keys ─▶ exchange by key ─▶ candidate pairs ─▶ similarity of each, on the texts

A text is named by the first 64 bits of its SHA-256, so copies of one text are one text here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wellfit.data.dedup import near
from wellfit.data.dedup.shingles import shingles
from wellfit.data.engine.engine import Engine
from wellfit.data.engine.task import File, Task
from wellfit.data.read.parts import columns, rows, text_batches

_KEYED = np.dtype([("key", "<u8"), ("text", "<u8")])
_PAIR = np.dtype([("one", "<u8"), ("two", "<u8")])
_BYTES_PER_BUCKET = 256 << 20
_PAIRS_PER_TASK = 2_000

Place = tuple[int, int]
"""Number of a part, and of a row in it."""


def text_key(sha256: str) -> int:
    """Digest of a text → the 64-bit number that stands for it here."""
    return int(sha256[:16], 16)


def find_pairs(
    engine: Engine, parts: Sequence[File], shingle_words: int, total_bytes: int
) -> dict[tuple[int, int], float]:
    """Parts → similarity of every candidate pair of distinct texts, each named by `text_key`."""
    parameters = {"shingle_words": shingle_words}
    tasks = [Task(name=part.path.name, files=(part,)) for part in parts]
    # A document has 64 keys of 16 bytes; a text of 4,000 bytes is usual, so keys are a quarter.
    buckets = max(1, -(-(total_bytes // 4) // _BYTES_PER_BUCKET))
    found = engine.exchange(
        "candidates", emit_bands, combine_candidates, tasks, parameters, buckets=buckets
    )
    candidates = np.unique(np.concatenate([np.load(result.file.path) for result in found]))
    if not len(candidates):
        return {}
    chunks = _chunks(candidates, parts)
    results = engine.map("similarities", verify, chunks, parameters, suffix=".npy")
    similarity: dict[tuple[int, int], float] = {}
    for result in results:
        for one, two, value in np.load(result.file.path).tolist():
            similarity[(one, two)] = value
    return similarity


def emit_bands(task: Task, parameters: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Part → rows (band key, text) of every text that has words."""
    pieces = [np.zeros(0, _KEYED)]
    for batch in text_batches(task.files[0].path, ["text", "sha256"]):
        prints = near.signatures(batch["text"], parameters["shingle_words"])
        wordy = near.has_words(prints)
        keys = near.band_keys(prints[wordy])
        rows_ = np.zeros(keys.shape, _KEYED)
        rows_["key"] = keys
        rows_["text"] = np.array([text_key(d) for d in batch["sha256"]], np.uint64)[wordy][:, None]
        pieces.append(rows_.reshape(-1))
    return np.unique(np.concatenate(pieces))


def combine_candidates(rows_: npt.NDArray[Any], parameters: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Rows of one bucket, sorted by key and text → distinct pairs of texts that share a key."""
    rows_ = np.unique(rows_)
    edges = np.flatnonzero(np.diff(rows_["key"])) + 1
    starts = np.concatenate(([0], edges, [len(rows_)]))
    shared = np.flatnonzero(np.diff(starts) > 1)
    pairs = [
        pair
        for group in shared.tolist()
        for pair in near.bucket_pairs(rows_["text"][starts[group] : starts[group + 1]].tolist())
    ]
    return np.unique(np.array(pairs, _PAIR))


def verify(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Candidate pairs, with the places of their texts → rows (one, two, Jaccard similarity)."""
    wanted: dict[int, set[int]] = {}
    for *_, place_one, place_two in task.data["pairs"]:
        for part, row in (place_one, place_two):
            wanted.setdefault(part, set()).add(row)
    sets: dict[Place, npt.NDArray[np.uint64]] = {}
    for part, numbers in wanted.items():
        for number, found in enumerate(rows(task.files[part].path, names=["text"])):
            if number in numbers:
                sets[(part, number)] = shingles(found["text"], parameters["shingle_words"])
    result = np.zeros(
        len(task.data["pairs"]), np.dtype([("one", "<u8"), ("two", "<u8"), ("similarity", "<f8")])
    )
    for place, (one, two, place_one, place_two) in enumerate(task.data["pairs"]):
        value = near.jaccard(sets[tuple(place_one)], sets[tuple(place_two)])
        result[place] = (int(one, 16), int(two, 16), value)
    with output.open("wb") as stream:
        np.save(stream, result)
    return {"pairs": len(result)}


def _chunks(candidates: npt.NDArray[Any], parts: Sequence[File]) -> list[Task]:
    """Candidate pairs → tasks of some thousand pairs, each with the parts that it needs."""
    places: dict[int, Place] = {}
    wanted = set(np.unique(np.concatenate([candidates["one"], candidates["two"]])).tolist())
    for number, part in enumerate(parts):
        for row, digest in enumerate(columns(part.path, ["sha256"])["sha256"]):
            key = text_key(digest)
            if key in wanted:
                places.setdefault(key, (number, row))
    located = sorted((places[one], places[two], one, two) for one, two in candidates.tolist())
    tasks = []
    for start in range(0, len(located), _PAIRS_PER_TASK):
        chunk = located[start : start + _PAIRS_PER_TASK]
        used = sorted({place[0] for a, b, *_ in chunk for place in (a, b)})
        local = {part: number for number, part in enumerate(used)}
        data = [
            [f"{one:016x}", f"{two:016x}", [local[a[0]], a[1]], [local[b[0]], b[1]]]
            for a, b, one, two in chunk
        ]
        files = tuple(parts[part] for part in used)
        tasks.append(Task(f"{len(chunk)} pairs", files, {"pairs": data}))
    return tasks
