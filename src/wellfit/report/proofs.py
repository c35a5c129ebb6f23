"""The proofs of a run → a short table: what was tested before a step, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from wellfit.records import Proof
from wellfit.report.gather import Material
from wellfit.report.health import badge
from wellfit.report.html import escape

PROOF_NAMES = {
    "supervised_tokens": "Tokens have labels",
    "label_offset": "Labels belong to their places",
    "first_loss": "The loss begins where it must",
    "gradient_coverage": "Every tensor learns",
    "causality": "No token sees later ones",
    "batch_versus_single": "Rows do not see each other",
    "packing_isolation": "Documents do not see each other",
    "cache_versus_full": "The cache changes nothing",
    "evaluation_determinism": "Evaluation is repeatable",
}
STATES = {
    "passed": ("healthy", "passed"),
    "failed": ("critical", "failed"),
    "not_assessed": ("info", "not assessed"),
}


def proofs_section(material: Material) -> str:
    """A Material → the section of its proofs; empty where none were made.

    Each proof stands once, with its newest answer; the title names the step that followed.
    """
    proofs = newest(material.history.proofs)
    if not proofs:
        return ""
    after = max(proof.step for proof in proofs)
    rows = "".join(
        f"<tr><td class=text>{escape(proof_name(proof.name))}</td>"
        f"<td class=text>{badge(*STATES.get(proof.state, ('info', proof.state)))}</td>"
        f"<td class=text>{escape(_text(proof, after))}</td></tr>"
        for proof in proofs
    )
    heads = "".join(f'<th scope="col" class=text>{head}</th>' for head in ("", "", "found"))
    return (
        f'<section id="proofs"><h2>Proofs before step {after + 1:,}</h2><div class="card">'
        f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></div></section>"
    )


def _text(proof: Proof, after: int) -> str:
    return proof.text + (f" (before step {proof.step + 1:,})" if proof.step != after else "")


def proof_name(name: str) -> str:
    """The name of a proof → what it says, in words.

    >>> proof_name("causality"), proof_name("my_proof")
    ('No token sees later ones', 'My proof')
    """
    return PROOF_NAMES.get(name, name.replace("_", " ").capitalize())


def newest(proofs: Sequence[Proof]) -> list[Proof]:
    """Proofs of any number of starts → the newest of each name, failed ones first."""
    latest = {proof.name: proof for proof in proofs}
    order = ("failed", "not_assessed", "passed")
    return sorted(latest.values(), key=lambda proof: order.index(proof.state))
