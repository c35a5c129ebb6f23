"""A model, its next batches and its optimizer in; a proof for each thing that must hold out.

    batches ─▶ supervised tokens, label offset
    weights ─▶ first loss, offset scan
    weights, zeros filled ─▶ gradients, causality, rows, documents, cache, evaluation

It costs about one batch of work and leaves weights, gradients, moments, random state and mode as
they were, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from wellfit.records import Proof
from wellfit.training.proofs.first_loss import first_loss
from wellfit.training.proofs.gradients import gradient_coverage
from wellfit.training.proofs.ground import (
    Answer,
    Ground,
    UnsettledError,
    looks_ahead,
    not_assessed,
    predicts,
)
from wellfit.training.proofs.isolation import batch_versus_single, causality, packing_isolation
from wellfit.training.proofs.labels import (
    ids_outside,
    label_offset,
    offset_scan,
    supervised_tokens,
)
from wellfit.training.proofs.repeats import cache_versus_full, evaluation_determinism
from wellfit.training.proofs.untouched import awake, untouched

if TYPE_CHECKING:
    import torch

    from wellfit.data.batches import Batch
    from wellfit.model.protocol import Beside, LanguageModel, Source
    from wellfit.training.optimizers import Optimizers

ROWS = 2
"""Rows that a probe reads: two show whether one sees the other."""
TRAINED = 100
"""Steps after which weights can be asked which token they predict."""


def prove(
    model: LanguageModel,
    batches: Sequence[Batch],
    optimizers: Optimizers | None,
    *,
    seed: int,
    device: torch.device,
    document_mask: bool,
    micro_batch: int,
    separator: int | None = None,
    separated: bool = True,
    step: int = 0,
    pretrained: bool = False,
) -> Iterator[Proof]:
    """A model about to make step `step + 1`, with the batches of that step and the next, in.

    Gives one Proof for every name in PROOFS, at step 0; after a resume (`step` > 0) those in
    AFTER_RESUME. At most `micro_batch` rows share a pass. `separator` is the token before each
    document, where there is one, and `separated` says that it stands nowhere else; `pretrained`,
    that the weights come from elsewhere.
    Everything is measured before the first proof is given out: by then the model is as it was.
    """
    names = [name for name in PROOFS if step == 0 or name in AFTER_RESUME]
    answers: dict[str, Answer] = {}
    with untouched(model, device):
        try:
            ground = _ground(
                model, batches, optimizers, seed, device, document_mask, micro_batch, separator,
                separated, step, pretrained,
            )  # fmt: skip
        except Exception as error:
            answers = dict.fromkeys(names, _not_made(error))
        else:
            # Ids that the model does not have stop every pass.
            sound = ids_outside(ground) is None
            asked = predicts(model) == "tokens" and not looks_ahead(model)
            if sound and asked and (pretrained or step >= TRAINED):
                ground = replace(ground, scan=_scan(ground))
            for name in names:
                if name == "supervised_tokens" or (sound and name in AS_THEY_ARE):
                    answers[name] = _answer(PROOFS[name], ground)
            with awake(model, seed):
                for name in names:
                    if name in answers:
                        continue
                    answers[name] = (
                        _answer(PROOFS[name], ground)
                        if sound
                        else not_assessed("The batches hold ids that the model does not have.")
                    )
    for name in names:
        yield Proof(step, name, answers[name].state, answers[name].text, answers[name].data)


def _ground(
    model: LanguageModel,
    batches: Sequence[Batch],
    optimizers: Optimizers | None,
    seed: int,
    device: torch.device,
    document_mask: bool,
    micro_batch: int,
    separator: int | None,
    separated: bool,
    step: int,
    pretrained: bool,
) -> Ground:
    import torch

    first = batches[0]
    rows = slice(0, max(1, min(ROWS, micro_batch, first.tokens.shape[0])))
    tokens, labels, positions, segments = (
        torch.from_numpy(array[rows].copy()).to(device)
        for array in (first.tokens, first.labels, first.positions, first.segments)
    )
    source: Source | None = None
    if first.source is not None:
        ids, places, numbers = (
            torch.from_numpy(array[rows].copy()).to(device)
            for array in (first.source.tokens, first.source.positions, first.source.segments)
        )
        source = ids, places, numbers
    model.train(False)
    model.dropout_key(seed, 0, 0)
    with torch.no_grad():
        nothing = torch.zeros((1, 1), dtype=torch.long, device=device)
        more: Beside = {} if source is None else {"source": (nothing, None, None)}
        one = model.hidden(nothing, **more)
        outputs = int(model.logits(one).shape[-1])
    known = getattr(model, "vocabulary_size", outputs)
    vocabulary = outputs if predicts(model) == "tokens" else int(known)
    return Ground(
        model=model,
        optimizers=optimizers,
        batches=tuple(batches),
        tokens=tokens,
        labels=labels,
        positions=positions,
        segments=segments,
        vocabulary=vocabulary,
        outputs=outputs,
        seed=seed,
        step=step,
        fresh=step == 0 and not pretrained,
        document_mask=document_mask,
        separator=separator,
        separated=separated,
        source=source,
    )


def _scan(ground: Ground) -> dict[int, float]:
    try:
        return offset_scan(ground)
    except Exception:  # the proofs themselves will say what is wrong
        return {}


def _answer(proof: Callable[[Ground], Answer], ground: Ground) -> Answer:
    """A proof and its ground in; its answer, or that it could not be made, out.

    Whatever a model of somebody's own raises on our questions is no fault of its training, which
    may never ask them; the step itself will raise where it matters.
    """
    try:
        return proof(ground)
    except Exception as error:
        return _not_made(error)


def _not_made(error: Exception) -> Answer:
    said = " ".join(str(error).split())[:200]
    if isinstance(error, UnsettledError):
        return not_assessed(f"It cannot be told: {said}.")
    kind = type(error).__name__
    return not_assessed(
        f"The proof could not be made: {kind}{': ' if said else ''}{said}", error=kind
    )


AS_THEY_ARE = frozenset({"first_loss"})
"""Proofs about the weights as they are; the others see tensors of zeros filled with noise."""
AFTER_RESUME = frozenset(
    {
        "supervised_tokens",
        "label_offset",
        "first_loss",
        "gradient_coverage",
        "evaluation_determinism",
    }
)
"""What can have changed with a checkpoint, other data or another optimizer."""
PROOFS: Mapping[str, Callable[[Ground], Answer]] = {
    "supervised_tokens": supervised_tokens,
    "label_offset": label_offset,
    "first_loss": first_loss,
    "gradient_coverage": gradient_coverage,
    "causality": causality,
    "batch_versus_single": batch_versus_single,
    "packing_isolation": packing_isolation,
    "cache_versus_full": cache_versus_full,
    "evaluation_determinism": evaluation_determinism,
}
