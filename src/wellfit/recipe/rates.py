"""An optimizer's or a schedule's section as written in; the numbers that it leaves out, out.

The rates of Muon and AdamW are this project's own or follow published models; those of the
others come from their papers and have not been measured here. Each reason says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

Filled = dict[str, tuple[Any, str]]
"""Dotted path → (value, the reason for it)."""

ADAPTER_RATE = 2e-4
"""AdamW's for the matrices of an adapter."""
_UNMEASURED = "not measured here"


def optimizer_rates(optimizer: Mapping[str, Any], width: int, *, long: bool) -> Filled:
    """`train.optimizer` as written and the model's width → what the dial adds to it.

    `long`: the runs of this size are long enough to need decay under Muon.

    >>> optimizer_rates({"kind": "lion"}, 768, long=False)["train.optimizer.learning_rate"][0]
    0.00012
    """
    kind = optimizer.get("kind", "muon")
    candidates: Filled = {
        "kind": ("muon", "fewer steps than AdamW to the same loss (arXiv 2502.16982)")
    }
    by_kind = RATES.get(kind, _muon) if isinstance(kind, str) else _muon
    candidates |= by_kind(optimizer, width, long)
    return {
        f"train.optimizer.{key}": value for key, value in candidates.items() if key not in optimizer
    }


def tuning_rates(optimizer: Mapping[str, Any]) -> Filled:
    """`train.optimizer` as written beside trained weights → what is gentler there.

    Only for the optimizers that weights are usually gone on with; the others keep their rates.

    >>> tuning_rates({})["train.optimizer.kind"][0]
    'adamw'
    >>> tuning_rates({"kind": "adamw", "learning_rate": 0.1})
    {}
    """
    kind = optimizer.get("kind", "adamw")
    usual = "usual for all weights of a trained model; from scratch it is far larger"
    rates: dict[Any, float] = {"adamw": 1e-5, "adamw_8bit": 1e-5, "adafactor": 1e-5, "lion": 2e-6}
    candidates: Filled = {"kind": ("adamw", "as trained weights are usually gone on with")}
    relative = kind == "adafactor" and optimizer.get("scale_by_size") is True
    if isinstance(kind, str) and kind in rates and not relative:
        candidates["learning_rate"] = (rates[kind], usual)
    return {
        f"train.optimizer.{key}": value for key, value in candidates.items() if key not in optimizer
    }


def adapter_rates(optimizer: Mapping[str, Any]) -> Filled:
    """`train.optimizer` as written, of a recipe with an adapter → what it adds before the dial.

    >>> adapter_rates({})["train.optimizer.learning_rate"][0]
    0.0002
    """
    kind = optimizer.get("kind", "adamw")
    candidates: Filled = {
        "kind": ("adamw", "Muon is for whole matrices, and A and B are thin factors of one")
    }
    if kind in ("adamw", "adamw_8bit"):
        why = "QLoRA's of 7B and 13B, whatever the width (arXiv 2305.14314, table 9)"
        candidates["learning_rate"] = (ADAPTER_RATE, why)
    return {
        f"train.optimizer.{key}": value for key, value in candidates.items() if key not in optimizer
    }


def schedule_shape(schedule: Mapping[str, Any], decay_share: float) -> Filled:
    """`train.schedule` as written and the size's decay share → what the dial adds to it."""
    added: Filled = {}
    kind = schedule.get("kind", "wsd")
    if "kind" not in schedule:
        added["train.schedule.kind"] = ("wsd", "can be prolonged without a new plan for the rate")
    if kind == "wsd" and "decay_share" not in schedule:
        added["train.schedule.decay_share"] = (
            decay_share,
            "most of the gain comes while the rate falls; the shorter the run, the earlier",
        )
    if kind == "one_cycle" and "warmup" not in schedule:
        added["train.schedule.warmup"] = (
            0.3,
            "one cycle rises for 0.3 of the run, as in torch.optim's OneCycleLR",
        )
    return added


def _adamw_rate(width: int) -> float:
    return _two_digits(6e-4 * 768 / width)


def _adamw(optimizer: Mapping[str, Any], width: int, long: bool) -> Filled:
    return {
        "learning_rate": (
            _adamw_rate(width),
            "6e-4 at width 768, falling as 1/width (arXiv 2203.03466; near GPT-3's table 2.1)",
        ),
        **_BETAS,
    }


def _muon(optimizer: Mapping[str, Any], width: int, long: bool) -> Filled:
    return {
        "matrix_learning_rate": (
            _two_digits(0.02 * sqrt(256 / width)),
            "0.02 at width 256, falling as 1/√width: wider layers add up more changes at once",
        ),
        "learning_rate": (
            _two_digits(0.006 * sqrt(256 / width)),
            "0.006 at width 256, falling as 1/√width: wider layers add up more changes at once",
        ),
        "momentum": (0.95, "that of Muon's author (kellerjordan.github.io/posts/muon)"),
        **_BETAS,
        "weight_decay": (
            (0.01, "long runs let Muon's weights grow without it (arXiv 2502.16982)")
            if long
            else (0.0, "short runs do not need it")
        ),
    }


def _lion(optimizer: Mapping[str, Any], width: int, long: bool) -> Filled:
    return {
        "learning_rate": (
            _two_digits(_adamw_rate(width) / 5),
            f"a fifth of AdamW's: its paper advises a third to a tenth; {_UNMEASURED}",
        ),
        "beta1": (0.95, f"as its paper has it for language models; {_UNMEASURED}"),
        "beta2": (0.98, f"as its paper has it for language models; {_UNMEASURED}"),
        "weight_decay": (
            0.5,
            "five times AdamW's, as the rate is a fifth: rate × decay stays (arXiv 2302.06675)",
        ),
    }


def _adafactor(optimizer: Mapping[str, Any], width: int, long: bool) -> Filled:
    if optimizer.get("scale_by_size") is True:
        rate = (
            0.01,
            "a hundredth of each tensor's size, as in T5 (arXiv 1910.10683); tensors that begin "
            f"at zero start slowly; {_UNMEASURED}",
        )
    else:
        rate = (_adamw_rate(width), f"AdamW's: its steps are as large as these; {_UNMEASURED}")
    return {
        "learning_rate": rate,
        "decay_power": (0.8, "that of its paper (arXiv 1804.04235, section 7.2)"),
    }


def _sgd(optimizer: Mapping[str, Any], width: int, long: bool) -> Filled:
    return {
        "learning_rate": (
            0.1,
            "gradients clipped to norm 1 then move the weights by at most 0.1 / (1 - momentum); "
            f"transformers want another optimizer; {_UNMEASURED}",
        ),
        "momentum": (0.9, f"the usual one (Sutskever et al. 2013); {_UNMEASURED}"),
    }


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


_BETAS: Filled = {
    "beta1": (0.9, "Adam's own (arXiv 1412.6980)"),
    "beta2": (0.95, "GPT-3's (arXiv 2005.14165): forgets sooner than Adam's 0.999"),
}
RATES: dict[str, Callable[[Mapping[str, Any], int, bool], Filled]] = {
    "adamw": _adamw,
    "adamw_8bit": _adamw,
    "muon": _muon,
    "lion": _lion,
    "adafactor": _adafactor,
    "sgd": _sgd,
}
