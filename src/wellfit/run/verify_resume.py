"""Is a resume exact here? A recipe is trained, killed, resumed, and compared tensor by tensor."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wellfit.data.build import build_corpus
from wellfit.errors import RunError
from wellfit.recipe.schema import Recipe
from wellfit.recipe.show import recipe_text
from wellfit.run.load import load
from wellfit.run.plan import settled
from wellfit.run.setting import corpus_folder
from wellfit.run.show import Show
from wellfit.training import checkpoint

CHILD = "from wellfit.cli import main; main()"
TOLERANCE = 1e-2
"""Largest relative difference of the weights after a resume with another micro-batch: rounding,
carried through the steps of the test."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """One training that was killed and resumed until it ended."""

    kills: tuple[int, ...]
    """Steps that were recorded when each kill came."""
    micro_batch: int
    identical: bool
    """Weights, moments and state are those of the undisturbed training, bit for bit."""
    largest: float
    """Largest relative difference of a tensor, ‖a − b‖ / ‖b‖; 0 where identical."""
    differences: tuple[str, ...] = ()
    """What differs, worst first."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome of a verification."""

    steps: int
    sha256: str
    """Digest of the weights of the undisturbed training."""
    same: Resumed
    other: Resumed | None = None
    """Resumed with another micro-batch: the same up to rounding, or None where not asked for."""
    recipe: dict[str, object] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether all is as promised."""
        close = self.other is None or self.other.largest <= TOLERANCE
        return self.same.identical and close

    def to_json(self) -> str:
        """Everything, as JSON."""
        return json.dumps({"exact": self.exact, "tolerance": TOLERANCE, **asdict(self)}, indent=2)


def verify_resume(
    path: Path,
    changes: tuple[str, ...],
    show: Show,
    *,
    steps: int = 12,
    kills: int = 3,
    micro_batch: int | None = None,
    seed: int = 0,
) -> Verified:
    """A recipe file → whether a training from it, killed at random moments, ends as undisturbed.

    Three trainings of `steps` steps in a scratch folder, through the command line: one to its
    end, one killed (SIGKILL) `kills` times and resumed, and with `micro_batch` one more whose
    last resume has that micro-batch. Raises RecipeError, DataError, or RunError where a training
    does not end.
    """
    quick = (
        f"train.budget={{steps: {steps}}}",
        "train.checkpoint_every=2",
        f"evaluate.every={max(2, steps // 3)}",
        f"monitor.sample_every={steps}",
    )
    recipe = load(path, (*changes, *quick))
    folder = corpus_folder(recipe).resolve()
    corpus = build_corpus(recipe.data, name=recipe.name, folder=folder, progress=show.stage)
    recipe = settled(recipe, corpus)
    with tempfile.TemporaryDirectory(prefix="wellfit-verify-") as scratch:
        written = Path(scratch) / "recipe.yaml"
        written.write_text(recipe_text(recipe), encoding="utf-8")
        command = [str(written), f"data.folder={folder}"]
        total = 2 + (micro_batch is not None)
        show.stage("undisturbed", 0, total)
        whole = Path(scratch) / "whole"
        _finish(_child(command, whole), whole)
        show.stage("killed and resumed", 1, total)
        draw = random.Random(seed)
        cut = Path(scratch) / "cut"
        moments = tuple(sorted(draw.sample(range(1, steps), min(kills, steps - 1))))
        killed = [_kill(command, cut, moment, draw) for moment in moments]
        _finish(_child(command, cut), cut)
        same = _compare(whole, cut, tuple(killed), recipe.train.micro_batch)
        other = None
        if micro_batch is not None:
            show.stage("with another micro-batch", 2, total)
            second = Path(scratch) / "other"
            at = _kill(command, second, steps // 2, draw)
            changed = [*command, f"train.micro_batch={micro_batch}"]
            _finish(_child(changed, second), second)
            other = _compare(whole, second, (at,), micro_batch)
        show.stage("compared", total, total)
        digest = _newest(whole)
        content = json.loads((digest / checkpoint.STATE).read_text(encoding="utf-8"))
    return Verified(
        steps=steps,
        sha256=content["files"][checkpoint.MODEL]["sha256"],
        same=same,
        other=other,
        recipe=_named(recipe),
    )


def lines(found: Verified) -> str:
    """An outcome → what a person reads."""
    told = [
        f"undisturbed: {found.steps} steps, weights {found.sha256[:16]}",
        _line(found.same, "killed after steps"),
    ]
    if found.other is not None:
        told.append(_line(found.other, f"micro-batch {found.other.micro_batch}, killed after step"))
    told.append(
        "Resuming is exact for this recipe on this machine."
        if found.exact
        else "Resuming is NOT exact for this recipe on this machine."
    )
    return "\n".join(told)


def _line(resumed: Resumed, how: str) -> str:
    at = ", ".join(map(str, resumed.kills))
    if resumed.identical:
        return f"{how} {at}: identical, bit for bit (weights, moments, state)"
    worst = "; ".join(resumed.differences[:3])
    return f"{how} {at}: largest relative difference {resumed.largest:.2g} ({worst})"


def _child(command: list[str], out: Path) -> list[str]:
    resume = ["--resume"] if (out / "run.json").exists() else []
    python = [sys.executable, "-c", CHILD]
    return [*python, "train", *command, "--out", str(out), "--quiet", *resume]


def _kill(command: list[str], out: Path, moment: int, draw: random.Random) -> int:
    """Train until so many steps are recorded, and a random moment more; then SIGKILL."""
    records = out / "records" / "steps-0.jsonl"
    before = _lines(records)
    with subprocess.Popen(
        _child(command, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and _lines(records) < max(moment, before + 1):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise _ended(process.returncode, error, out)
    return _lines(records)


def _finish(arguments: list[str], out: Path) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _ended(done.returncode, done.stderr, out)


def _ended(status: int, error: str, out: Path) -> RunError:
    last = error.strip().splitlines()[-3:] or ["no message"]
    return RunError(
        f"a training ended with status {status}: {' '.join(last)}",
        where=out.name,
        way_out="Mend that first; `wellfit check RECIPE` tries two steps.",
    )


def _lines(records: Path) -> int:
    return records.read_bytes().count(b"\n") if records.exists() else 0


def _newest(run: Path) -> Path:
    newest = checkpoint.latest(run / "checkpoints")
    assert newest is not None, "a training that ended well has saved its last step"
    checkpoint.verify(newest)
    return newest


def _compare(whole: Path, cut: Path, kills: tuple[int, ...], micro_batch: int) -> Resumed:
    """Two finished runs → what differs between their last checkpoints."""
    import torch
    from safetensors.torch import load_file

    expected, found = _newest(whole), _newest(cut)
    distances: dict[str, float] = {}
    for file in sorted(path.name for path in expected.glob("*.safetensors")):
        ours, theirs = load_file(found / file), load_file(expected / file)
        for name in sorted(ours.keys() | theirs.keys()):
            one, other = ours.get(name), theirs.get(name)
            if one is None or other is None or one.shape != other.shape:
                distances[f"{file}: {name}"] = float("inf")
            elif not torch.equal(one, other):
                size = max(float(other.double().norm()), 1e-30)
                distances[f"{file}: {name}"] = float((one.double() - other.double()).norm()) / size
    worst = sorted(distances.items(), key=lambda pair: -pair[1])
    told = [f"{name} by {far:.2g}" for name, far in worst]
    told += [
        f"{name} is {found_value}, was {value}"
        for name, (found_value, value) in _state_differences(found, expected).items()
    ]
    weights = [far for name, far in worst if name.startswith(checkpoint.MODEL)]
    return Resumed(
        kills=kills,
        micro_batch=micro_batch,
        identical=not told,
        largest=max(weights, default=max(distances.values(), default=0.0)),
        differences=tuple(told),
    )


def _state_differences(found: Path, expected: Path) -> dict[str, tuple[object, object]]:
    one, other = checkpoint.verify(found), checkpoint.verify(expected)
    names = ("step", "planned_steps", "tokens", "seed", "non_finite_in_a_row", "extra")
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _named(recipe: Recipe) -> dict[str, object]:
    return {
        "name": recipe.name,
        "optimizer": recipe.train.optimizer.kind,
        "precision": recipe.train.precision,
        "dropout": recipe.model.dropout,
    }
