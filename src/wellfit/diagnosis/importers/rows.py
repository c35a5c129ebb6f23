"""Points in the order a trainer logged them → a series with strictly increasing steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from wellfit.monitor.history import Series


@dataclass(slots=True)
class Points:
    """Collects points; a step that comes again, or jumps back, replaces what stood from it on."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    jumps: list[int] = field(default_factory=list)
    """Steps at which the log jumped back: the training was resumed from before."""
    superseded: int = 0
    repeated: int = 0
    """Points written twice for one step."""

    def add(self, step: int, value: float) -> None:
        """Append a point; later attempts win."""
        if self.steps and step == self.steps[-1]:
            self.repeated += 1
            self.steps.pop()
            self.values.pop()
        elif self.steps and step < self.steps[-1]:
            self.jumps.append(step)
            while self.steps and self.steps[-1] >= step:
                self.steps.pop()
                self.values.pop()
                self.superseded += 1
        self.steps.append(step)
        self.values.append(value)

    def series(self) -> Series:
        """A frozen copy."""
        return Series(tuple(self.steps), tuple(self.values))


def repetition_notes(name: str, points: Points) -> list[str]:
    """What was replaced while collecting, one sentence each."""
    notes = []
    if points.jumps:
        notes.append(
            f"The steps of the {name} jump back {len(points.jumps)} times (to step "
            f"{points.jumps[0]:,} first), as after a resume; {points.superseded} points of "
            "earlier attempts were replaced by later ones."
        )
    if points.repeated:
        notes.append(
            f"{points.repeated} steps carried the {name} twice; the later value was taken."
        )
    return notes
