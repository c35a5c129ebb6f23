"""A data section, and what stands in the corpus that is built of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from wellfit.data.corpus import Corpus
from wellfit.recipe.schema import Data


def section(*paths: Path, **changes: Any) -> Data:
    return Data(
        **{
            "sources": [{"path": str(path)} for path in paths],
            "tokenizer": {"vocabulary_size": 300},
            "workers": 1,
            **changes,
        }
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def decisions(corpus: Corpus) -> dict[str, dict[str, Any]]:
    """Path of each document → its decision."""
    table = pq.read_table(corpus.folder / "decisions.parquet").to_pylist()
    by_id = {row["id"]: row for row in table}
    documents = [
        row
        for part in sorted((corpus.folder / "documents").glob("part-*.parquet"))
        for row in pq.read_table(part, columns=["id", "path"]).to_pylist()
    ]
    return {row["path"]: by_id[row["id"]] for row in documents}
