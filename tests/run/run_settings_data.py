"""How each setting of `data` shows its effect."""

from __future__ import annotations

# Setting → (changes for both, the change, where it must show).
DATA: dict[str, tuple[tuple[str, ...], str, str]] = {
    "sources": ((), "data.sources=[{path: texts}]", "shards/train-00000.bin"),
    "sources[].path": ((), "data.sources.1.path=texts/01.txt", "shards/train-00000.bin"),
    "sources[].format": ((), "data.sources.0.format=markdown", "documents/part-00000.parquet"),
    "sources[].domain": ((), "data.sources.0.domain=poems", "shards.json"),
    "sources[].text_field": ((), "data.sources.1.text_field=title", "shards/train-00000.bin"),
    "clean": ((), "data.clean=[]", "documents/part-00000.parquet"),
    "clean[]": ((), "data.clean=[run_extensions:shout]", "documents/part-00000.parquet"),
    "filters": ((), "data.filters=[]", "decisions.parquet"),
    "filters[]": ((), "data.filters=[{too_short: {min_characters: 300}}]", "decisions.parquet"),
    "duplicates.exact": (
        ("data.duplicates.near=false",),
        "data.duplicates.exact=false",
        "decisions.parquet",
    ),
    "duplicates.near": ((), "data.duplicates.near=false", "decisions.parquet"),
    "duplicates.threshold": ((), "data.duplicates.threshold=0.99", "decisions.parquet"),
    "duplicates.shingle_words": ((), "data.duplicates.shingle_words=1", "pairs.parquet"),
    "duplicates.max_removed_share": (
        (),
        "data.duplicates.max_removed_share=0.0",
        "decisions.parquet",
    ),
    "split.validation": ((), "data.split.validation=0.4", "decisions.parquet"),
    "split.test": ((), "data.split.test=0.4", "decisions.parquet"),
    "split.family_threshold": ((), "data.split.family_threshold=1", "decisions.parquet"),
    "tokenizer.file": ((), "data.tokenizer.file=other.json", "tokenizer.json"),
    "tokenizer.separator": (
        ("data.tokenizer.file=other.json",),
        "data.tokenizer={file: other.json, separator: '!'}",
        "shards.json",
    ),
    "tokenizer.vocabulary_size": ((), "data.tokenizer.vocabulary_size=310", "tokenizer.json"),
    "tokenizer.new_tokens": ((), "data.tokenizer.new_tokens=[<a>]", "tokenizer.json"),
    "tokenizer.new_tokens[]": (
        ("data.tokenizer.new_tokens=[<a>]",),
        "data.tokenizer.new_tokens=[<b>]",
        "tokenizer.json",
    ),
    "max_rejected_share": ((), "data.max_rejected_share=0.0", "error"),
    "workers": ((), "data.workers=2", "processes"),
}
