"""Checkpoints written behind the training: what is copied, order, errors, kills at every point."""

from __future__ import annotations

import os
import resource
import shutil
import threading
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from wellfit.errors import CheckpointError
from wellfit.training import checkpoint
from wellfit.training.retention import Score
from wellfit.training.saving import Saver

SHAPES = {"head": torch.Size([20, 30]), "bias": torch.Size([3])}
KEYS = dict.fromkeys(["head/step", "head/exp_avg"], "head")


def tensors(value):
    """Weights, moments and average of a training whose every number is `value`."""
    weights = {name: torch.full(shape, float(value)) for name, shape in SHAPES.items()}
    moments = {"head/step": torch.tensor(float(value)), "head/exp_avg": torch.ones(20, 30) * value}
    average = {name: -tensor for name, tensor in weights.items()}
    return weights, moments, average


def state(step, **more):
    more = {"extra": {}} | more
    return checkpoint.State(
        step, 100, 12345, 3, True, 0, {"clip_norm": 0.1}, {"torch": "x"}, **more
    )


class Gate:
    """Holds `checkpoint.save` back until it is opened; counts how many are inside."""

    def __init__(self, monkeypatch):
        self.open, self.inside = threading.Event(), threading.Event()
        real = checkpoint.save

        def save(*given, **named):
            self.inside.set()
            assert self.open.wait(60)
            return real(*given, **named)

        monkeypatch.setattr(checkpoint, "save", save)


def standing(folder):
    """What stands, each verified."""
    for path in folder.glob("step-*"):
        if not path.name.endswith(".partial"):
            checkpoint.verify(path)
    return checkpoint.steps(folder)


def test_what_is_written_is_the_state_at_the_boundary(tmp_path, monkeypatch):
    """Everything given is changed while the writer waits: tensors, and objects inside `extra`.

    Break: handing over the live tensors; keeping the caller's `extra`.
    """
    gate = Gate(monkeypatch)
    with Saver(tmp_path, keep_last=9) as saver:
        weights, moments, average = tensors(1)
        extra = {"scale": 65536.0, "skipped": [3, 4]}
        assert saver.start(state(5, extra=extra), weights, moments, average) == []
        assert gate.inside.wait(60) and saver.poll() == []
        assert checkpoint.steps(tmp_path) == [] and saver.steps() == [5]
        for tensor in (*weights.values(), *moments.values(), *average.values()):
            tensor.fill_(7.0)
        extra["skipped"].append(5)
        gate.open.set()
        (saved,) = saver.finish()
    assert saved.step == 5 and saved.path == f"{tmp_path.name}/step-000005"
    path = tmp_path / "step-000005"
    found, weights, moments = checkpoint.load(path, SHAPES, KEYS)
    assert found.extra == {"scale": 65536.0, "skipped": [3, 4]}
    assert all((tensor == 1).all() for tensor in (*weights.values(), *moments.values()))
    average = checkpoint.load_average(path, SHAPES)
    assert all((tensor == -1).all() for tensor in average.values())


def test_the_same_bytes_as_in_the_foreground(tmp_path):
    """Bit patterns that arithmetic would lose. Break: copying through another type or shape."""
    odd = {
        "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T,
        "bytes": torch.arange(200, dtype=torch.uint8),
        "odd": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
    }
    for name, background in (("behind", True), ("before", False)):
        with Saver(tmp_path / name, keep_last=2, background=background) as saver:
            for step in (1, 2):  # the second into the same memory
                odd["scalar"].fill_(step)
                saver.start(state(step), odd, {}, odd)
    for step in ("step-000001", "step-000002"):
        for file in (checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.AVERAGE, checkpoint.STATE):
            one, other = tmp_path / "behind" / step / file, tmp_path / "before" / step / file
            assert one.read_bytes() == other.read_bytes()


def test_the_copies_memory_is_used_again_and_fits_what_comes(tmp_path):
    """Moments appear after the first update. Break: `_kept` never emptied keeps what is gone."""
    with Saver(tmp_path, keep_last=9) as saver:
        weights, moments, _ = tensors(1)
        saver.start(state(1), weights, {})
        saver.finish()
        places = {name: t.data_ptr() for name, t in saver._copies["weights"]._kept.items()}
        saver.start(state(2), weights, moments)
        saver.start(state(3), {"head": torch.ones(2, 2)}, {})
        saver.finish()
        assert saver._copies["weights"]._kept["head"].shape == (2, 2)
        saver.start(state(4), weights, moments)
        saver.finish()
        kept = saver._copies["weights"]._kept
        assert places["bias"] != 0 and set(kept) == set(weights)
    assert load_file(tmp_path / "step-000003" / checkpoint.MODEL).keys() == {"head"}
    assert load_file(tmp_path / "step-000004" / checkpoint.OPTIMIZER).keys() == moments.keys()


def test_one_at_a_time_and_in_order(tmp_path, monkeypatch):
    """The second waits for the first, and hands its record back. Break: two writers."""
    gate = Gate(monkeypatch)
    with Saver(tmp_path, keep_last=9) as saver:
        saver.start(state(5), *tensors(5))
        assert gate.inside.wait(60)
        gate.open.set()
        assert [saved.step for saved in saver.start(state(6), *tensors(6))] == [5]
        assert saver.steps() == [5, 6]
        assert [saved.step for saved in saver.finish()] == [6]
        assert saver.finish() == saver.poll() == []


@pytest.mark.parametrize("background", [True, False])
def test_nothing_is_written_twice_or_before_the_first_step(tmp_path, background):
    with Saver(tmp_path, keep_last=9, background=background) as saver:
        assert saver.start(state(0), *tensors(0)) == []
        told = saver.start(state(5), *tensors(5))
        told += saver.start(state(5), *tensors(6))
        told += saver.finish()
        assert [saved.step for saved in told] == [5]
    assert (load_file(tmp_path / "step-000005" / checkpoint.MODEL)["head"] == 5).all()


def test_the_foreground_has_its_record_at_once_and_copies_nothing(tmp_path):
    """Break: a thread though none was asked for."""
    before = threading.active_count()
    with Saver(tmp_path, keep_last=1, background=False) as saver:
        assert [saved.step for saved in saver.start(state(5), *tensors(5))] == [5]
        assert threading.active_count() == before and not saver._copies
        with pytest.raises(CheckpointError, match="step 6 cannot be written"):
            shutil.rmtree(tmp_path)
            tmp_path.write_text("no folder")
            saver.start(state(6), *tensors(6))


def test_the_newest_and_the_best_stay(tmp_path):
    """Break: not passing `keep_best` on; ranking by what the folder's order is."""
    found = ()
    with Saver(tmp_path, keep_last=1, keep_best=2) as saver:
        for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, 4.0)):
            found = (*found, Score(step, "validation.loss", loss))
            saver.start(state(step, scores=found), *tensors(step))
    assert standing(tmp_path) == [2, 3, 5]
    assert checkpoint.read_state(tmp_path / "step-000005").scores == found


def test_leaving_waits_for_the_checkpoint_in_flight(tmp_path, monkeypatch):
    """Break: `shutdown(wait=False)`."""
    gate = Gate(monkeypatch)
    with Saver(tmp_path, keep_last=9) as saver:
        saver.start(state(5), *tensors(5))
        assert gate.inside.wait(60)
        threading.Timer(0.05, gate.open.set).start()
    assert standing(tmp_path) == [5]


# ── errors ─────────────────────────────────────────────────────────────────────────────────


class Full:
    """A limit on the size of files, as of a disk that has no room for the tensors."""

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def settled(saver):
    """Waits until the writer is done, without asking it for anything."""
    while not saver._writing.done():
        threading.Event().wait(0.001)


@pytest.mark.parametrize("call", ["poll", "finish", "start"])
def test_no_room_is_told_at_the_next_call_once_and_older_checkpoints_stand(tmp_path, call):
    """Break: dropping the error with the future; raising it again and again."""
    with Saver(tmp_path, keep_last=1) as saver:
        saver.start(state(5), *tensors(5))
        saver.finish()
        with Full():
            saver.start(state(6), *tensors(6))
            settled(saver)
        calls = {
            "poll": saver.poll,
            "finish": saver.finish,
            "start": lambda: saver.start(state(7), *tensors(7)),
        }
        with pytest.raises(CheckpointError) as error:
            calls[call]()
        message = str(error.value)
        assert "the checkpoint of step 6 cannot be written (File too large)" in message
        assert "step-000005 is untouched" in message and "Make room" in message
        assert [path.name for path in tmp_path.iterdir()] == ["step-000005"]
        assert saver.poll() == saver.finish() == []
        saver.start(state(8), *tensors(8))  # there is room again
    assert standing(tmp_path) == [8]


def test_an_error_in_flight_is_told_on_leaving(tmp_path):
    """Break: waiting for the writer, but not asking how it went."""
    told = pytest.raises(CheckpointError, match="step 5 cannot be written")
    with Full(), told, Saver(tmp_path, keep_last=1) as saver:
        saver.start(state(5), *tensors(5))


def test_what_ended_the_training_is_told_first(tmp_path):
    """Break: raising the writer's error in place of the one that came before."""
    with pytest.raises(ZeroDivisionError) as error, Full(), Saver(tmp_path, keep_last=1) as saver:
        saver.start(state(5), *tensors(5))
        raise ZeroDivisionError
    (note,) = error.value.__notes__
    assert note.startswith("besides: ") and "step 5 cannot be written" in note


@pytest.mark.parametrize("background", [True, False])
def test_what_json_cannot_hold_is_told_when_it_is_given(tmp_path, background):
    """A mistake of ours, at the place where it was made, and nothing half-written stays."""
    with Saver(tmp_path, keep_last=1, background=background) as saver:
        with pytest.raises(ValueError, match="not JSON compliant"):
            saver.start(state(5, extra={"scale": float("inf")}), *tensors(5))
        assert saver.steps() == []
    assert list(tmp_path.iterdir()) == []


# ── kills ──────────────────────────────────────────────────────────────────────────────────


def killed_at(folder, point, monkeypatch):
    """Saves in a forked child that dies before its `point`-th call of the file system; died?"""
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real):
            def call(*given, **named):
                nonlocal calls
                calls += 1
                if calls == point:
                    os._exit(9)
                return real(*given, **named)

            return call

        try:
            for name in ("open", "fsync", "mkdir", "rename", "rmdir", "unlink", "close"):
                monkeypatch.setattr(os, name, counted(getattr(os, name)))
            from pathlib import Path

            for name in ("open", "mkdir", "rename"):
                monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
            with Saver(folder, keep_last=1) as saver:
                saver.start(state(6), *tensors(6))
            os._exit(0)
        except BaseException:
            os._exit(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.waitpid(child, 0)[1] >> 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_point_leaves_the_old_or_the_new_one_whole(tmp_path, monkeypatch):
    """The child dies before each of its calls of the file system in turn, until it dies no more.

    Break: removing the old one before the new one has its name; renaming before state.json.
    """
    seen = set()
    for point in range(1, 200):
        folder = tmp_path / str(point)
        checkpoint.save(folder, state(5), *tensors(5), keep=1)
        status = killed_at(folder, point, monkeypatch)
        assert status in (0, 9)
        left = standing(folder)
        assert left in ([5], [5, 6], [6]), left
        newest = checkpoint.latest(folder)
        found, weights, _ = checkpoint.load(newest, SHAPES, KEYS)
        assert (weights["head"] == found.step).all()
        seen.add((tuple(left), any(folder.glob("*.partial"))))
        checkpoint.clean(folder)
        assert standing(folder) == left and not list(folder.glob("*.partial"))
        if status == 0:
            break
    else:
        pytest.fail("never came to its end")
    assert {left for left, _ in seen} == {(5,), (5, 6), (6,)} and point > 15
    assert ((5,), True) in seen, "some died while writing"


def test_remaining_state_is_what_was_given(tmp_path):
    """All that a State holds, there and back. Break: a field left out of the file."""
    full = replace(
        state(5),
        scores=(Score(3, "validation.loss", 2.5), Score(4, "validation.accuracy", 0.125)),
        extra={"loss_scaler": {"scale": 2.0**16, "growth": 17}, "micro_batch": 4, "skipped": [2]},
        non_finite_in_a_row=2,
        probed=False,
    )
    with Saver(tmp_path, keep_last=1) as saver:
        saver.start(full, *tensors(5))
    assert checkpoint.verify(tmp_path / "step-000005") == full
    assert checkpoint.read_state(tmp_path / "step-000005") == full
