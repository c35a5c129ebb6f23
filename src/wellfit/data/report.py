"""A build's counts → `report.json`: all that a person wants to know about a corpus."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wellfit.data.decide import Decided, Decision
from wellfit.data.filter.scores import NAMES
from wellfit.data.leakage import HeldOut
from wellfit.data.read.walk import Found
from wellfit.records import Rejected, Shard

FORMAT_VERSION = 1
_SAMPLES = 20
_EXCERPT = 200  # characters of a text
_QUANTILES = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)

Documents = Sequence[Mapping[str, Any]]


def counts_of_reading(
    found: Mapping[str, Found], rejected: Sequence[Rejected], summaries: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Files, rejected records and the summaries of the reading tasks → the report's first part."""
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update({key: value for key, value in summary.items() if isinstance(value, int)})
    return {
        "sources": {
            name: {
                "root": str(one.root),
                "files": len(one.inputs),
                "passed_over": one.passed_over,
                "rejected": sum(record.source == name for record in rejected),
            }
            for name, one in found.items()
        },
        "records": total["documents"] + len(rejected),
        "documents": total["documents"],
        "bytes": total["bytes"],
        "changed_by_cleaning": total["changed_by_cleaning"],
        "rejected": rejected_counts(rejected),
    }


def rejected_counts(rejected: Sequence[Rejected]) -> dict[str, Any]:
    """Rejected records → how many, why, and the first of them."""
    return {
        "records": len(rejected),
        "by_reason": _most_common(kind_of(record.reason) for record in rejected),
        "samples": [
            {"path": r.path, "position": r.position, "reason": r.reason}
            for r in rejected[:_SAMPLES]
        ],
    }


def counts_of_decisions(documents: Documents, decided: Decided) -> dict[str, Any]:
    """Documents and decisions → what went at which stage, and a sample of each."""
    by_stage: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for document in documents:
        decision = decided.decisions[document["id"]]
        if not decision.keep:
            by_stage[decision.stage].append(document)
    near = sum(len(by_stage.get(stage, ())) for stage in ("exact duplicate", "near duplicate"))
    return {
        "dropped": {
            stage: {
                "documents": len(gone),
                "bytes": sum(document["bytes"] for document in gone),
                "by_source": _most_common(document["source"] for document in gone),
                "samples": [
                    {
                        "id": document["id"],
                        "path": _place(document),
                        "bytes": document["bytes"],
                        "reason": decided.decisions[document["id"]].reason,
                    }
                    for document in gone[:_SAMPLES]
                ],
            }
            for stage, gone in sorted(by_stage.items())
        },
        "duplicates": near,
        "spared_near_duplicates": len(decided.spared),
        "families": len(set(decided.families.values())),
    }


def counts_of_splits(
    documents: Documents, decided: Decided, tokens: Mapping[str, int]
) -> dict[str, Any]:
    """Kept documents and their tokens (separator included) → counts by split and by kind."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for label in ("split", "domain", "source", "content_type", "language"):
        groups: dict[str, Counter[str]] = defaultdict(Counter)
        for document in documents:
            decision = decided.decisions[document["id"]]
            if decision.keep:
                name = decision.split if label == "split" else document[label]
                groups[name]["documents"] += 1
                groups[name]["bytes"] += document["bytes"]
                groups[name]["tokens"] += tokens[document["id"]]
        table[f"by_{label}"] = {
            name: dict(counts)
            for name, counts in sorted(
                groups.items(), key=lambda pair: (-pair[1]["bytes"], pair[0])
            )
        }
    kept = [d for d in documents if decided.decisions[d["id"]].keep]
    size = sum(document["bytes"] for document in kept)
    count = sum(tokens.values())
    table["kept"] = {"total": {"documents": len(kept), "bytes": size, "tokens": count}}
    return table


def pair_samples(
    documents: Documents, decided: Decided, texts: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Dropped duplicates and the beginnings of their texts → pairs for a person to look at."""
    by_id = {document["id"]: document for document in documents}
    return [
        {
            "dropped": _shown(by_id[one], texts),
            "kept": _shown(by_id[decision.other], texts),
            "similarity": round(decision.similarity, 4),
            "stage": decision.stage,
        }
        for one, decision in sampled_pairs(decided)
    ]


def sampled_pairs(decided: Decided) -> list[tuple[str, Decision]]:
    """Decisions → those about duplicates that the report shows: the least similar ones first."""
    repeated = [(one, d) for one, d in decided.decisions.items() if d.other]
    repeated.sort(key=lambda pair: (pair[1].similarity, pair[0]))
    return repeated[:_SAMPLES]


def leakage_of(held_out: HeldOut) -> dict[str, Any] | None:
    """What held-out text and train share → as JSON; None where nothing is held out."""
    if all(side == "train" for side in held_out.side):
        return None
    leak = held_out.leakage
    return {
        "ngram_words": leak.ngram_words,
        "held_out_ngrams": leak.ngrams,
        "shared_with_train": leak.shared,
        "share": leak.share,
        "contained_from": held_out.contained,
        "contained_documents": sum(share >= held_out.contained for _, share in leak.documents),
        "kept_in_train": {
            "documents": len(held_out.barred),
            "samples": list(held_out.barred[:_SAMPLES]),
        },
        "worst_documents": [
            {"id": one, "share": share} for one, share in leak.documents[:_SAMPLES]
        ],
    }


def score_quantiles(columns: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Scores of all documents → for each the quantiles that a threshold is chosen by."""
    import numpy as np

    return {
        name: {
            f"{quantile:g}": round(float(np.quantile(columns[name], quantile)), 4)
            for quantile in _QUANTILES
        }
        for name in NAMES
        if len(columns[name])
    }


def shards_of(shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """Shards → name, tokens and documents of each."""
    return [{"name": s.name, "tokens": s.tokens, "documents": s.documents} for s in shards]


def kind_of(reason: str) -> str:
    """Reason for a rejection → its kind, without what differs from record to record.

    >>> kind_of("not JSON: Expecting value at character 8 (the file ends within this line)")
    'not JSON: Expecting value'
    """
    for mark in (" at byte", " at character", "; its ", " of "):
        reason = reason.partition(mark)[0]
    return reason


def _most_common(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0])))


def _place(document: Mapping[str, Any]) -> str:
    where = document["path"]
    if document["row"] is not None:
        return f"{where} row {document['row']}"
    return f"{where} {document['member']}".strip()


def _shown(document: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    text = texts.get(document["id"], "")
    return {"id": document["id"], "path": _place(document), "text": text[:_EXCERPT]}
