"""failed_proof: what a proof before the first step found wrong; the kinds are those of FAULTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wellfit.monitor.history import History
from wellfit.records import Cause, Certainty, Change, Finding, Proof, Severity


@dataclass(frozen=True, slots=True)
class Fault:
    """What a fault is called in the catalogue, and the way out."""

    cause: str
    why: str
    change: str
    patch: tuple[tuple[str, Any], ...] = ()
    severity: Severity = "critical"
    or_else: tuple[tuple[str, str], ...] = ()
    """Further causes: (catalogue id, why)."""

    def causes(self) -> tuple[Cause, ...]:
        """The causes, the likeliest first."""
        rest = [Cause(name, 0.1, why) for name, why in self.or_else]
        return (Cause(self.cause, 0.9 if rest else 1.0, self.why), *rest)


def failed_proof(history: History) -> list[Finding]:
    """A history → a finding for every proof whose newest answer is `failed`; the fault's kind.

    A proof is an exact test of model, batches or optimizer and no statistics: its findings are
    certain. Proofs that a later attempt passed count no more.
    """
    newest: dict[str, Proof] = {}
    for proof in history.proofs:
        newest[proof.name] = proof
    return [_finding(proof) for proof in newest.values() if proof.state == "failed"]


def fault_of(proof: Proof) -> tuple[str, Fault | None]:
    """A failed proof → the kind of its fault, and what is known about it."""
    kind = str(proof.data.get("fault") or "failed_proof")
    return kind, FAULTS.get(kind)


def _finding(proof: Proof) -> Finding:
    kind, fault = fault_of(proof)
    certain: Certainty = "certain"
    evidence = (f"Proof `{proof.name}` before step {proof.step + 1:,}: {proof.text}",)
    if fault is None:  # from a newer version
        return Finding(kind, "critical", certain, proof.step, evidence)
    change = Change(fault.change, dict(fault.patch))
    return Finding(kind, fault.severity, certain, proof.step, evidence, fault.causes(), change)


FAULTS: dict[str, Fault] = {
    "causal_leak": Fault(
        "A08",
        "a token sees tokens that it must predict",
        "Mend the attention mask, or whatever mixes tokens over time (convolution padding, a norm "
        "over the row, a roll): place t may read places up to t only.",
    ),
    "labels_not_shifted": Fault(
        "D02",
        "the labels are the inputs themselves",
        "Shift the labels once: the label of place t is token t + 1.",
    ),
    "labels_double_shift": Fault(
        "D03",
        "labels are shifted in the data and again in the model",
        "Remove one of the two shifts: `token_loss` takes the label of its own place.",
    ),
    "labels_misaligned": Fault(
        "D01",
        "labels do not belong to their tokens",
        "Print a row of tokens beside its labels: shuffling, packing or another column pairs them "
        "wrongly.",
    ),
    "loss_not_cross_entropy": Fault(
        "O09",
        "the loss is scaled or summed where it should be nats a token",
        "Make `token_loss` the cross-entropy of `logits`, in nats, for each token on its own.",
        or_else=(("D03", "the loss of a place stands at another place"),),
    ),
    "mask_all": Fault(
        "D08",
        "every label is masked",
        "Print the labels of that batch: at least one must differ from −100.",
    ),
    "eos_masked": Fault(
        "D11",
        "the token that ends a document is never a label",
        "Keep the end of each document among the labels; padding needs a token of its own.",
    ),
    "pad_in_loss": Fault(
        "D12",
        "padding is trained on",
        "Give padding the label −100.",
    ),
    "ids_outside": Fault(
        "D17",
        "the data was made with another tokenizer",
        "Build the corpus with the tokenizer of this model, or give the model its vocabulary.",
    ),
    "init_big": Fault(
        "A11",
        "the first weights are drawn too large",
        "Draw weights smaller: 0.02 for matrices and head, or variance-preserving with a zero "
        "head.",
        (("model.init", "zero_projections"),),
    ),
    "loss_too_low": Fault(
        "D02",
        "the labels reach the logits",
        "Look for the labels among the inputs, and for what the loss does besides cross-entropy.",
        or_else=(("A08", "tokens see what they must predict"),),
    ),
    "loss_not_finite": Fault(
        "P01",
        "weights or activations are not finite before any update",
        "Look for weights that were never drawn or loaded (they are NaN until then).",
    ),
    "param_missing": Fault(
        "O16",
        "the optimizer was built before the tensor, or without it",
        "Build the optimizer from all of `named_parameters()`, after the model is complete.",
    ),
    "param_twice": Fault(
        "O16",
        "a tensor stands in two groups of the optimizer",
        "Give every tensor to one group only; tied matrices count as one.",
    ),
    "param_foreign": Fault(
        "O16",
        "the optimizer was built for tensors that were replaced since",
        "Build the optimizer after the last change of the model.",
    ),
    "frozen_tensor": Fault(
        "A13",
        "`requires_grad` is off",
        "Set `requires_grad` again, or leave the tensor out of `named_parameters()`.",
    ),
    "rate_zero": Fault(
        "O04",
        "a group of the optimizer has the rate 0",
        "Give the group a peak rate above 0.",
    ),
    "zero_gradient": Fault(
        "O16",
        "the tensor takes no part in the loss",
        "Look where the tensor is used: it is cut off by `detach`, by a dead unit, or not used at "
        "all. Experts that few tokens reach belong into `sparse_parameters`.",
        or_else=(("A04", "its units are dead"), ("O12", "the gradient vanishes on its way")),
    ),
    "gradient_not_finite": Fault(
        "P01",
        "the backward pass makes NaN or infinity",
        "Look for a division, root or logarithm of zero in the forward pass of these tensors.",
    ),
    "row_mixing": Fault(
        "A24",
        "rows of a batch see each other, or their padding",
        "Look for statistics over the batch and for masks made for another shape; a model that "
        "means it says so in `mixes_tokens`.",
    ),
    "pack_leak": Fault(
        "D19",
        "documents packed into one row see each other",
        "Heed `segments` in the attention mask, and `positions` that restart at each document.",
    ),
    "segments_wrong": Fault(
        "D19",
        "a new document does not begin a new segment",
        "Count segments up and restart positions at every separator.",
    ),
    "kv_cache_bug": Fault(
        "A20",
        "generation reads from its cache what the model never said",
        "Continue positions, mask and length of the cache where the tokens before it ended.",
    ),
    "dropout_eval": Fault(
        "E02",
        "dropout, or something else that is random, is on in evaluation",
        "Let `train(False)` switch it off in every part of the model.",
        or_else=(("S20", "a kernel that is not deterministic"),),
    ),
    "dropout_unkeyed": Fault(
        "S20",
        "dropout is drawn from the global random state",
        "Draw dropout from `dropout_key(seed, step, first_row)`; else a resume differs.",
        severity="warning",
    ),
    "dropout_inert": Fault(
        "E02",
        "the model was left in evaluation mode, or its dropout is not wired",
        "Let `train(True)` switch dropout on, or set it to 0.",
        severity="warning",
    ),
}
