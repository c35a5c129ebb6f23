"""Where moments live: the same bits everywhere, room taken at once, refusals in a sentence."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from optimizer_parts import KINDS, ROLES, built, copies, differing, settings, steep, weights

from wellfit.errors import RunError
from wellfit.training.optimizers import places
from wellfit.training.optimizers.places import Place


def trained(kind, *, place=None, apply=None, **changes):
    parameters = weights()
    made = built(kind, parameters, **changes)
    if place is not None:
        made = dataclasses.replace(made, place=place)
    for step in range(1, 5):
        steep(parameters, step)
        made.step(apply)
    return copies(made, parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_paged_moments_have_the_same_bits(kind):
    """Break: two tensors of the file at one offset."""
    assert differing(trained(kind), trained(kind, states="paged")) == []


@pytest.mark.parametrize("apply", [None, 1.0, 0.0])
@pytest.mark.parametrize("kind", KINDS)
def test_fetched_and_returned_moments_have_the_same_bits(kind, apply):
    """What `offload` does between two devices, between two tensors of one.

    Break: not writing the copies back.
    """
    fetched = Place(lambda name, moments: {key: one.clone() for key, one in moments.items()}, True)
    gate = None if apply is None else torch.tensor(apply)
    assert differing(trained(kind, apply=gate), trained(kind, place=fetched, apply=gate)) == []


def test_offload_is_refused_where_moments_are_on_the_host_already():
    with pytest.raises(RunError) as refused:
        built("adamw", weights(), states="offload")
    assert str(refused.value).splitlines()[0] == (
        "train.optimizer.states=offload: moments of a model on the CPU are in the host's memory "
        "already"
    )
    assert "states=paged" in str(refused.value)


def test_offload_on_a_device_keeps_moments_on_the_host():
    """The device is `meta` here: only where things are put is looked at."""
    place = places.on_host(torch.device("meta"))
    assert place.away
    kept = place.keep("x", {"exp_avg": torch.ones(3)})
    assert kept["exp_avg"].device.type == "cpu"


def test_a_full_disk_is_told_before_the_first_step(monkeypatch):
    """Break: a file with holes instead of one whose room is taken: the process dies later."""

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError) as refused:
        built("adamw", weights(), states="paged")
    text = str(refused.value)
    assert "train.optimizer.states=paged: no room for 0 MB of moments in" in text
    assert "No space left on device" in text and "TMPDIR" in text


def test_paged_takes_as_much_of_the_file_as_moments_need(monkeypatch):
    taken = []
    real = places._mapped
    monkeypatch.setattr(places, "_mapped", lambda size: taken.append(size) or real(size))
    built("adamw", weights(), states="paged")
    numbers = sum(one.numel() for one in weights().values())
    # Up to 63 bytes to the next multiple of 64, for each of three tensors a parameter.
    assert 8 * numbers < taken[0] < 8 * numbers + 3 * 64 * len(ROLES)


def mapping_of(tensor: torch.Tensor) -> str:
    """The line of the kernel's table of mappings in which a tensor's first byte lies."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= tensor.data_ptr() < last:
            return line
    raise AssertionError("the tensor lies nowhere")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_paged_moments_lie_in_a_nameless_file(tmp_path, monkeypatch):
    """Break: cloning what the place keeps; or a file that keeps its name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    parameters = weights()
    made = built("adamw", parameters, states="paged")
    steep(parameters, 1)
    made.step()
    assert list(tmp_path.iterdir()) == []
    for name, moment in made.state().items():
        line = mapping_of(moment)
        assert line.split()[1] == "rw-s", (name, line)
        assert str(tmp_path) in line and line.endswith("(deleted)"), (name, line)
    assert str(tmp_path) not in mapping_of(parameters["out"])


def test_paged_moments_come_back_from_a_checkpoint():
    """Break: `load` leaving the loaded tensors in anonymous memory."""
    parameters = weights()
    made = built("adamw_8bit", parameters, states="paged")
    steep(parameters, 1)
    made.step()
    before = {key: one.clone() for key, one in made.state().items()}
    held = {key: one.data_ptr() for key, one in made.state().items()}
    made.load({key: one.clone() for key, one in before.items()})
    assert differing(before, made.state()) == []
    assert held == {key: one.data_ptr() for key, one in made.state().items()}
    assert settings("adamw_8bit", states="paged").states == "paged"
