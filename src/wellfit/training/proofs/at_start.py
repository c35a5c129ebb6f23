"""What the loop does with proofs: make them before the next step, and end the run or not."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from wellfit.records import Event, Proof, Record
from wellfit.training.proofs.prove import prove

if TYPE_CHECKING:
    from wellfit.training.checkpoint import State
    from wellfit.training.start import Setup

BATCHES = 2
"""Batches whose labels are looked at; the passes use a few rows of the first."""


def at_start(setup: Setup, state: State) -> Generator[Record, None, bool]:
    """A setup and its state in; proofs about the next step out, and whether the run must end here.

    Where it must, the last record is an Event `failed` with the reasons and the way out. Nothing
    is made with `train.proofs: off`, nor where no step is left.
    """
    section, step = setup.section, state.step
    ahead = range(step + 1, min(step + BATCHES, state.planned_steps) + 1)
    if section.proofs == "off" or not ahead:
        return False
    proofs = list(
        prove(
            setup.model,
            [setup.batches.batch(number) for number in ahead],
            setup.optimizers,
            seed=setup.seed,
            device=setup.device,
            document_mask=section.document_mask,
            micro_batch=section.micro_batch,
            separator=getattr(setup.batches, "separator", None),
            separated=getattr(setup.batches, "separated", True),
            step=step,
            pretrained=bool(getattr(setup.model, "pretrained", False)),
        )
    )
    yield from proofs
    event = refusal(proofs, step, section.proofs)
    if event is None:
        return False
    yield event
    return True


def refusal(proofs: Iterable[Proof], step: int, policy: str) -> Event | None:
    """Proofs, the steps made and `train.proofs` in; the Event that ends the run, or None, out.

    >>> refusal([Proof(0, "causality", "passed", "")], 0, "stop") is None
    True
    >>> leak = Proof(0, "causality", "failed", "Place 3 changed.", {"fault": "causal_leak"})
    >>> refusal([leak], 0, "warn") is None
    True
    >>> refusal([leak], 0, "stop").data
    {'proofs': ['causality'], 'faults': ['causal_leak']}
    """
    wrong = [proof for proof in proofs if proof.state == "failed"]
    if policy != "stop" or not wrong:
        return None
    faults = [str(proof.data.get("fault", "")) for proof in wrong]
    reasons = [f"{proof.name}: {proof.text}" for proof in wrong]
    text = (
        f"{'a proof' if len(wrong) == 1 else f'{len(wrong)} proofs'} failed before step "
        f"{step + 1:,}, and no step was made. {' '.join(reasons)} The findings name what to "
        "change; to train all the same, set train.proofs to warn."
    )
    data = {"proofs": [proof.name for proof in wrong], "faults": faults}
    return Event(step, "failed", text, data)
