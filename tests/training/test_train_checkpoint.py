"""Checkpoints: there and back bit for bit, rotation, damage, and a disk that is full."""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from wellfit.errors import CheckpointError
from wellfit.training import checkpoint
from wellfit.training.retention import Score

WEIGHTS = {
    "head": torch.linspace(-1, 1, 600).reshape(20, 30),
    "bias": torch.tensor([1.5, float("nan"), -0.0]),
    "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T,
}
MOMENTS = {"head/step": torch.tensor(7.0), "head/exp_avg": torch.ones(20, 30)}
SHAPES = {name: tensor.shape for name, tensor in WEIGHTS.items()}
KEYS = dict.fromkeys(MOMENTS, "head")


def state(step=7):
    return checkpoint.State(step, 100, 12345, 3, True, 0, {"clip_norm": 0.1}, {"torch": "x"})


def save(folder, step=7, keep=9):
    return checkpoint.save(folder, state(step), WEIGHTS, MOMENTS, keep=keep)


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name].view(torch.uint8), other[name].contiguous().view(torch.uint8))
        for name in one
        if one[name].ndim
    )


def test_there_and_back_bit_for_bit(tmp_path):
    """Break: writing a transposed tensor's memory without .contiguous()."""
    saved = save(tmp_path / "checkpoints")
    path = tmp_path / saved.path
    assert saved.path == "checkpoints/step-000007" and checkpoint.latest(path.parent) == path
    found, weights, moments = checkpoint.load(path, SHAPES, KEYS)
    assert found == state() and same(weights, WEIGHTS) and same(moments, MOMENTS)
    assert moments["head/step"] == 7.0
    assert saved.bytes == sum(file.stat().st_size for file in path.iterdir())
    written = json.loads((path / "state.json").read_text())
    assert saved.sha256 == written["files"]["model.safetensors"]["sha256"]
    assert same(load_file(path / "model.safetensors"), weights)


def test_same_weights_same_digest_whatever_the_order(tmp_path):
    one = checkpoint.save(tmp_path / "a", state(), WEIGHTS, MOMENTS, keep=1)
    turned = dict(reversed(WEIGHTS.items()))
    other = checkpoint.save(tmp_path / "b", state(9), turned, MOMENTS, keep=1)
    assert one.sha256 == other.sha256


def test_rotation_keeps_the_newest(tmp_path):
    """Break: sorting names as text puts step-1000000 before step-999999."""
    for step in (999_998, 999_999, 1_000_000):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1000000", "step-999999"]
    assert checkpoint.latest(tmp_path).name == "step-1000000"


def test_unfinished_folders_are_no_checkpoints_and_are_cleaned(tmp_path):
    save(tmp_path)
    (tmp_path / "step-000009.partial").mkdir()
    (tmp_path / "notes").mkdir()
    assert checkpoint.latest(tmp_path).name == "step-000007"
    checkpoint.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "step-000007"]
    assert checkpoint.latest(tmp_path / "missing") is None


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "flipped bit": (flip, "SHA-256"),
    "cut short": (lambda file: file.write_bytes(file.read_bytes()[:-5]), "bytes expected"),
    "missing": (lambda file: file.unlink(), "the file is missing"),
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_damage_names_file_digests_and_the_older_checkpoint(tmp_path, name, how):
    """Break: comparing sizes only lets a flipped bit through."""
    save(tmp_path, 5)
    path = tmp_path / "step-000007"
    save(tmp_path, 7)
    expected = json.loads((path / "state.json").read_text())["files"][name]["sha256"]
    damage, words = DAMAGES[how]
    damage(path / name)
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path, SHAPES, KEYS)
    message = str(error.value)
    assert message.startswith(f"{path / name}: damaged") and words in message
    assert (expected in message) is (how == "flipped bit")
    assert "Remove the folder step-000007" in message and "from step-000005" in message
    assert checkpoint.verify(tmp_path / "step-000005") == state(5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not the JSON"),
        ('{"format_version": 1, "step"', "not the JSON"),
        ("[]", "not the JSON"),
    ],
)
def test_an_unreadable_state_is_named(tmp_path, text, words):
    save(tmp_path)
    (tmp_path / "step-000007" / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=words) as error:
        checkpoint.verify(tmp_path / "step-000007")
    assert "training begins anew" in str(error.value)


def test_a_changed_number_in_the_state_is_seen(tmp_path):
    """Break: no digest of state.json itself."""
    save(tmp_path)
    file = tmp_path / "step-000007" / "state.json"
    file.write_text(file.read_text().replace("12345", "12346"))
    with pytest.raises(CheckpointError, match=r"state\.json: damaged: SHA-256 .* expected"):
        checkpoint.verify(file.parent)


def test_an_unknown_format_is_refused(tmp_path):
    save(tmp_path)
    file = tmp_path / "step-000007" / "state.json"
    file.write_text(file.read_text().replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(CheckpointError, match=r"format_version 3 is unknown; .* reads 1 and 2"):
        checkpoint.verify(file.parent)


def test_a_checkpoint_of_format_1_still_opens(tmp_path):
    """As the first release wrote it: no scores, nothing further, no average.

    Break: a field of the state without a default; reading format 2 alone.
    """
    save(tmp_path)
    path = tmp_path / "step-000007"
    content = json.loads((path / "state.json").read_text())
    for name in ("sha256", "scores", "extra"):
        del content[name]
    content["format_version"] = 1
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
    content["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    checkpoint.write_json(path / "state.json", content)
    found, weights, _ = checkpoint.load(path, SHAPES, KEYS)
    assert found == state() and found.scores == () and found.extra == {}
    assert same(weights, WEIGHTS) and checkpoint.load_average(path, SHAPES) is None


def test_the_average_has_its_own_file_and_digest(tmp_path):
    """Break: leaving the third file out of `files`; loading the weights for the average."""
    average = {name: tensor * 2 for name, tensor in WEIGHTS.items()}
    path = tmp_path / "step-000007"
    checkpoint.save(tmp_path, state(), WEIGHTS, MOMENTS, average, keep=1)
    assert same(checkpoint.load_average(path, SHAPES), average)
    assert checkpoint.evaluated_file(path).name == "average.safetensors"
    with pytest.raises(CheckpointError, match=r"average\.safetensors: .*head is \[20, 30\]"):
        checkpoint.load_average(path, {**SHAPES, "head": torch.Size([20, 31])})
    flip(path / "average.safetensors")
    with pytest.raises(CheckpointError, match=r"average\.safetensors: damaged: SHA-256"):
        checkpoint.verify(path)


def test_an_average_that_no_digest_covers_is_refused(tmp_path):
    """Copied there by hand from elsewhere. Break: verifying only what state.json lists."""
    save(tmp_path)
    path = tmp_path / "step-000007"
    assert checkpoint.evaluated_file(path).name == "model.safetensors"
    shutil.copy(path / "model.safetensors", path / "average.safetensors")
    with pytest.raises(CheckpointError, match=r"average\.safetensors: .* not written with the"):
        checkpoint.load(path, SHAPES, KEYS)


def test_a_score_that_is_not_finite_is_kept_as_such(tmp_path):
    """Strict JSON has no NaN. Break: `allow_nan=True`, or an error where a loss diverged."""
    scores = (Score(5, "validation.loss", 2.5), Score(7, "validation.loss", float("inf")))
    full = replace(state(), scores=scores)
    checkpoint.save(tmp_path, full, WEIGHTS, MOMENTS, keep=1)
    text = (tmp_path / "step-000007" / "state.json").read_text()
    found = checkpoint.verify(tmp_path / "step-000007").scores
    assert "Infinity" not in text and found[0] == scores[0]
    assert found[1].step == 7 and math.isnan(found[1].value)


def test_going_back_removes_what_came_after(tmp_path):
    """Break: `latest` finds the abandoned line after a kill."""
    for step in (3, 5, 7, 9):
        save(tmp_path, step)
    checkpoint.remove_after(tmp_path, 5)
    assert checkpoint.steps(tmp_path) == [3, 5]
    assert checkpoint.at(tmp_path, 5) == checkpoint.latest(tmp_path)


def test_another_model_or_optimizer_is_refused_by_name(tmp_path):
    save(tmp_path)
    path = tmp_path / "step-000007"
    shapes = {**SHAPES, "head": torch.Size([20, 31]), "new": torch.Size([2])}
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path, shapes, KEYS)
    assert "head is [20, 30] in the checkpoint, [20, 31] here" in str(error.value)
    assert "new is absent in the checkpoint, [2] here" in str(error.value)
    assert "train into a new folder" in str(error.value)
    with pytest.raises(CheckpointError, match=r"optimizer differs .* at head/momentum_buffer"):
        checkpoint.load(path, SHAPES, {**KEYS, "head/momentum_buffer": "head"})


def refused(folder, words):
    with pytest.raises(CheckpointError) as error:
        save(folder, 9)
    message = str(error.value)
    assert words in message and "step-000007 is untouched" in message
    assert "checkpoint of step 9 cannot be written" in message and "Make room" in message
    assert [path.name for path in folder.iterdir()] == ["step-000007"]
    assert checkpoint.verify(folder / "step-000007") == state(7)


def test_a_file_too_large_leaves_the_earlier_checkpoint(tmp_path):
    """Break: no clean-up after an error leaves step-000009.partial and its bytes."""
    save(tmp_path, 7)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        refused(tmp_path, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path):
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    command = [mount, "-t", "tmpfs", "-o", "size=32k", "none", str(small)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small file system")
    try:
        save(small, 7)
        with pytest.raises(CheckpointError, match="No space left on device"):
            for step in range(9, 20):
                save(small, step)
        assert not list(small.glob("*.partial"))
        assert checkpoint.verify(small / "step-000007") == state(7)
    finally:
        subprocess.run(["umount", str(small)], check=True)
