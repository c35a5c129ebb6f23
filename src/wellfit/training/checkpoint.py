"""A training's state in, a checkpoint folder out; and back, bit for bit.

    checkpoints/step-000100/
      model.safetensors      the weights, as they are trained (float32)
      optimizer.safetensors  `<parameter>/<moment>` → tensor
      average.safetensors    the running average of the weights, where there is one
      state.json             where the training stands, digests of the others and its own

A folder under its final name is complete: it is written under another name, every file and folder
is synced, and then it is renamed. Nothing is pickled, so a checkpoint cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.errors import CheckpointError
from wellfit.records import Saved
from wellfit.training.retention import Score, to_remove
from wellfit.training.tensors import sha256, write_tensors

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 2
READABLE = (1, 2)
"""Format 1 had neither scores nor an average nor further state; it opens without them."""
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
AVERAGE = "average.safetensors"
OTHER_RECIPE = "Resume with the recipe it was trained with, or train into a new folder."


@dataclass(frozen=True, slots=True)
class State:
    """Where a training stands after `step`; everything beside the tensors that the rest needs."""

    step: int
    planned_steps: int
    tokens: int
    """Supervised tokens since the beginning."""
    seed: int
    probed: bool
    """False while this step's evaluation or sample, though due, is still to be made."""
    non_finite_in_a_row: int
    """Steps just before and including this one whose update was not applied."""
    settings: dict[str, Any]
    """The recipe's `train` section."""
    build: dict[str, Any]
    """What the bits depend on beside it: torch, device, arithmetic, threads."""
    scores: tuple[Score, ...] = ()
    """Every evaluation so far, by the score that decides which is best and when to stop."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Whatever else must be exactly as it was: JSON of finite numbers, texts, lists and objects."""


def save(
    folder: Path,
    state: State,
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    average: Mapping[str, torch.Tensor] | None = None,
    *,
    keep: int,
    keep_best: int = 0,
    best_by: str = "validation.loss",
) -> Saved:
    """The folder of checkpoints and a training's state in; the record of the new checkpoint out.

    `Saved.path` begins at the run folder (`checkpoints/step-000100`). Afterwards the newest `keep`
    checkpoints stand, and the `keep_best` that `state.scores` find best. Raises CheckpointError
    where it cannot be written; earlier checkpoints are then untouched and nothing half-written is
    left.
    """
    started = time.perf_counter()
    target = folder / _name(state.step)
    partial = folder / f"{target.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        parts = {MODEL: weights, OPTIMIZER: moments}
        if average is not None:
            parts[AVERAGE] = average
        files = {name: write_tensors(partial / name, tensors) for name, tensors in parts.items()}
        content = {
            "format_version": FORMAT_VERSION,
            **asdict(state),
            "scores": [_score_written(score) for score in state.scores],
            "files": {name: asdict(written) for name, written in files.items()},
        }
        write_json(partial / STATE, {**content, "sha256": _own_digest(content)})
        _sync_folder(partial)
        partial.rename(target)
        _sync_folder(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise _cannot_write(error, folder, state.step) from error
        raise
    gone = to_remove(steps(folder), state.scores, keep_last=keep, keep_best=keep_best, by=best_by)
    for step in gone:
        _remove(folder / _name(step))
    return Saved(
        step=state.step,
        path=f"{folder.name}/{target.name}",
        sha256=files[MODEL].sha256,
        bytes=sum(file.stat().st_size for file in target.iterdir()),
        seconds=time.perf_counter() - started,
    )


def exists(folder: Path, step: int) -> bool:
    """The folder of checkpoints and a step in; whether its checkpoint stands there."""
    return (folder / _name(step)).is_dir()


def steps(folder: Path) -> list[int]:
    """The folder of checkpoints in; the steps of those that stand there, rising, out."""
    return [step_of(path) for path in all_of(folder)]


def at(folder: Path, step: int) -> Path:
    """The folder of checkpoints and a step in; where that step's checkpoint stands or would."""
    return folder / _name(step)


def remove_after(folder: Path, step: int) -> None:
    """The folder of checkpoints and a step in; every later checkpoint is removed.

    For a training that goes back to `step` on purpose: `latest` must not find what it left.
    """
    # The newest first: killed in between, the training goes on from a checkpoint of one line.
    for path in reversed(all_of(folder)):
        if step_of(path) > step:
            _remove(path)


def latest(folder: Path) -> Path | None:
    """The folder of checkpoints in; the newest complete one out, or None where there is none."""
    return next(reversed(all_of(folder)), None)


def clean(folder: Path) -> None:
    """The folder of checkpoints in; removes what a killed process left unfinished there."""
    for partial in folder.glob("step-*.partial"):
        shutil.rmtree(partial)


def verify(path: Path) -> State:
    """A checkpoint in; its state out, once every digest is found right.

    Raises CheckpointError that names the damaged file, what was expected and found, and the
    checkpoint before it.
    """
    content = _read_state(path)
    for name, written in content["files"].items():
        file = path / name
        if not file.is_file():
            raise _damaged(path, name, "the file is missing")
        if file.stat().st_size != written["bytes"]:
            raise _damaged(
                path, name, f"{written['bytes']} bytes expected, {file.stat().st_size} found"
            )
        found = sha256(file)
        if found != written["sha256"]:
            raise _damaged(path, name, f"SHA-256 {written['sha256']} expected, {found} found")
    for file in path.glob("*.safetensors"):
        if file.name not in content["files"]:
            raise _damaged(path, file.name, "the file was not written with the others")
    return _state_of(content)


def read_state(path: Path) -> State:
    """A checkpoint in; its state out, with the digest of `state.json` alone checked.

    Raises CheckpointError where that file is damaged or of an unknown format.
    """
    return _state_of(_read_state(path))


def load(
    path: Path, weights: Mapping[str, torch.Size], moments: Mapping[str, str]
) -> tuple[State, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A checkpoint, the shapes of the model's weights and the optimizer's `{moment: parameter}` in.

    State, weights and moments out, on the CPU. Raises CheckpointError where it is damaged or
    belongs to another model or optimizer, with the names that differ.
    """
    from safetensors.torch import load_file

    state = verify(path)
    model, optimizer = load_file(path / MODEL), load_file(path / OPTIMIZER)
    _refuse_other_shapes(path / MODEL, model, weights)
    # Moments are made by the first update: before it, a file without any is the right one.
    wrong = ", ".join(sorted(optimizer.keys() ^ moments.keys())[:3]) if optimizer else ""
    if wrong:
        raise CheckpointError(
            f"the recipe's optimizer differs from the checkpoint's, at {wrong}",
            where=str(path / OPTIMIZER),
            way_out=OTHER_RECIPE,
        )
    return state, model, optimizer


def load_average(path: Path, weights: Mapping[str, torch.Size]) -> dict[str, torch.Tensor] | None:
    """A checkpoint that `load` or `verify` found right, and the shapes of the model's weights, in.

    The average of the weights on the CPU, or None where the checkpoint has none, out. Raises
    CheckpointError where it belongs to another model.
    """
    from safetensors.torch import load_file

    if not (path / AVERAGE).is_file():
        return None
    average: dict[str, torch.Tensor] = load_file(path / AVERAGE)
    _refuse_other_shapes(path / AVERAGE, average, weights)
    return average


def refuse_other_base(path: Path, state: State, model: object) -> None:
    """A checkpoint, its state and the model it shall go into in; nothing out.

    A checkpoint of an adapter holds what was trained beside a frozen base, which the state names
    by its digest. Raises CheckpointError where the model's base is another one.
    """
    trained, here = state.build.get("base", ""), getattr(model, "base_digest", "")
    if trained != here:
        words = [
            f"base {digest[:12]}" if digest else "no frozen base" for digest in (trained, here)
        ]
        raise CheckpointError(
            f"it was trained on {words[0]}, and the model has {words[1]}",
            where=str(path),
            way_out="Put back the weights that it was trained on: what was learnt beside one base "
            "is worth nothing beside another.",
        )


def evaluated_file(path: Path) -> Path:
    """A checkpoint in; the file of the weights that its evaluations score, out.

    That is the average where there is one, else the weights themselves.
    """
    return path / (AVERAGE if (path / AVERAGE).is_file() else MODEL)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A path and a mapping in; the file, indented and synced to disk."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read_state(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        version = content["format_version"]
    except FileNotFoundError as error:
        raise _damaged(path, STATE, "the file is missing") from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise _damaged(path, STATE, "it is not the JSON that was written") from error
    if version not in READABLE:
        listed = " and ".join(str(known) for known in READABLE)
        raise CheckpointError(
            f"format_version {version!r} is unknown; this wellfit reads {listed}",
            where=str(path / STATE),
            way_out="Use the wellfit version that wrote it.",
        )
    expected = content.pop("sha256", None)
    found = _own_digest(content)
    if expected != found:
        raise _damaged(path, STATE, f"SHA-256 {expected} expected, {found} found")
    result: dict[str, Any] = content
    return result


def _state_of(content: Mapping[str, Any]) -> State:
    known = {part.name: content[part.name] for part in fields(State) if part.name in content}
    if "scores" in known:
        known["scores"] = tuple(_score_read(score) for score in known["scores"])
    return State(**known)


def _score_written(score: Score) -> dict[str, Any]:
    # JSON has no NaN, and a score that is not finite is never the best, whatever it was.
    return {**asdict(score), "value": score.value if math.isfinite(score.value) else None}


def _score_read(score: Mapping[str, Any]) -> Score:
    value = math.nan if score["value"] is None else score["value"]
    return Score(score["step"], score["by"], value)


def _refuse_other_shapes(
    file: Path, found: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Size]
) -> None:
    wrong = _differences({name: tensor.shape for name, tensor in found.items()}, weights)
    if wrong:
        raise CheckpointError(
            f"the recipe's model differs from the checkpoint's: {wrong}",
            where=str(file),
            way_out=OTHER_RECIPE,
        )


def _own_digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _damaged(path: Path, name: str, how: str) -> CheckpointError:
    older = [other for other in all_of(path.parent) if step_of(other) < step_of(path)]
    way_out = (
        f"Remove the folder {path.name} and resume: training goes on from {older[-1].name}."
        if older
        else f"No older checkpoint is left: remove the folder {path.name} and resume; "
        "training begins anew."
    )
    return CheckpointError(f"damaged: {how}", where=str(path / name), way_out=way_out)


def _cannot_write(error: OSError, folder: Path, step: int) -> CheckpointError:
    newest = latest(folder)
    kept = f"{newest.name} is untouched" if newest else "no earlier one exists"
    return CheckpointError(
        f"the checkpoint of step {step} cannot be written ({error.strerror}); {kept}",
        where=str(folder),
        way_out="Make room or mend the folder, then resume.",
    )


def _differences(found: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size]) -> str:
    lines = [
        f"{name} is {_shape(found.get(name))} in the checkpoint, {_shape(wanted.get(name))} here"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else f"{list(shape)}"


def all_of(folder: Path) -> list[Path]:
    """The folder of checkpoints in; the complete ones out, by rising step."""
    complete = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(complete, key=step_of)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    """A checkpoint's folder in, its step out."""
    return int(path.name.removeprefix("step-"))


def _remove(path: Path) -> None:
    # Renamed first, so that a kill in between leaves no folder that looks complete.
    going = path.with_name(f"{path.name}.partial")
    with suppress(OSError):
        path.rename(going)
        shutil.rmtree(going)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
