"""Names that trainers give to their numbers → what they mean."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

STEPS = (
    "global_step", "trainer_global_step", "step", "steps", "current_steps", "iteration",
    "iterations", "iter", "iters", "it", "itr", "update", "updates", "num_updates",
    "train_global_step", "optimizer_step", "training_step", "n_iter", "batch",
)  # fmt: skip
"""Names of the optimizer step, the surest first."""
EPOCHS = ("epoch", "epochs", "train_epoch", "current_epoch", "epoch_num")
HELD_OUT = ("val", "valid", "validation", "eval", "evaluation", "dev", "test", "heldout", "holdout")
"""Words that mark a number as measured on held-out data; `test` only counts without another."""
RATES = ("lr", "learning_rate", "learningrate", "lrs")
NORMS = (
    "grad_norm", "gradient_norm", "gradnorm", "gnorm", "total_grad_norm", "global_grad_norm",
    "grad_norm_total", "grad_2_0_norm_total", "grad_2_norm_total", "norm", "grads_norm",
    "grad_norm_before_clip", "global_norm", "l2_grad_norm", "grad_l2_norm",
)  # fmt: skip
TOKENS = ("num_tokens", "tokens", "tokens_seen", "num_input_tokens_seen", "total_tokens",
          "consumed_tokens", "n_tokens_seen")  # fmt: skip
SPEEDS = ("tokens_per_second", "tok_sec", "tokens_per_sec", "tok_s", "tps", "tokens_s",
          "train_tokens_per_second", "tokens_per_second_per_gpu")  # fmt: skip
SECONDS = ("step_time", "seconds", "step_seconds", "time_per_step", "sec_per_step")
REWARDS = ("reward", "rewards_mean", "frac_reward_zero_std", "objective_rlhf_reward",
           "reward_mean", "ep_rew_mean", "mean_reward", "episode_reward_mean",
           "rollout_ep_rew_mean", "policy_loss", "actor_loss", "critic_loss",
           "value_loss", "objective_scores")  # fmt: skip
"""Only reinforcement learning logs these."""
PREFERENCES = ("rewards_chosen", "rewards_rejected", "rewards_margins", "logps_chosen")
"""Only preference optimisation logs these; its loss begins at ln 2 (Rafailov et al. 2023)."""
PARTS = frozenset(
    ["aux", "auxiliary", "router", "balance", "balancing", "kl", "lb", "reg", "regularization",
     "z", "zloss", "moe", "scale", "scaler", "l1", "l2", "commit", "style", "adv", "gen", "disc",
     "entropy", "vq", "mtp", "running", "best", "min", "max", "std", "diff", "ratio", "se",
     "smooth", "smoothed", "ema"]
)  # fmt: skip
"""Words of losses that are a part, a scale or a summary of the one asked for."""
FILLERS = frozenset(
    ["loss", "losses", "epoch", "step", "total", "mean", "avg", "average", "lm", "ce", "nll",
     "xent", "cross", "of", "the", "at", "per", "metrics", "metric", "global", "loop", "and",
     "on", "set", "data", "dataloader", "idx", "0", "ppl", "perplexity", "model", "token",
     "batch", "train", "training", "value", "log", "scalars", "lm_loss", "language", "modeling"]
)  # fmt: skip


SETTINGS: dict[str, tuple[str, ...]] = {
    "vocabulary_size": ("vocab_size", "padded_vocab_size", "n_vocab", "vocabulary_size"),
    "planned_steps": (
        "max_steps", "total_steps", "max_iters", "train_iters", "num_training_steps",
        "total_iterations", "max_iterations", "num_iterations",
    ),
    "planned_epochs": (
        "num_train_epochs", "num_epochs", "max_epochs", "epochs", "n_epochs", "total_epochs",
    ),
    "accumulation": (
        "gradient_accumulation_steps", "accumulate_grad_batches", "grad_accum_steps", "grad_accum",
    ),
    "clip_norm": ("max_grad_norm", "gradient_clip_val", "grad_clip", "clip_grad", "clip_grad_norm"),
    "warmup_steps": ("warmup_steps", "warmup_iters", "lr_warmup_iters", "num_warmup_steps"),
}  # fmt: skip
"""What a History wants to know → the settings that tell it, by their trainers' names."""


class Role(NamedTuple):
    """What a name stands for: `train`, `validation`, `rate`, `norm`, `epoch`, `step`, …"""

    kind: str
    set: str = ""
    """Of a validation loss: its evaluation set."""
    rank: int = 0
    """Among several columns of one kind, lower is surer."""
    perplexity: bool = False
    """The values are exp(loss)."""


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """A name → lower case, words joined by `_`.

    >>> plain("Loss/val"), plain("trainer/global_step"), plain("lr-AdamW"), plain("valLoss")
    ('loss_val', 'trainer_global_step', 'lr_adamw', 'val_loss')
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


@lru_cache(maxsize=4096)
def role(name: str) -> Role | None:
    """A trainer's name for a number → its role; None where it has none for a diagnosis.

    >>> role("train/loss"), role("eval_books_loss"), role("Loss/val").set
    (Role(kind='train', set='', rank=1, perplexity=False), \
Role(kind='validation', set='books', rank=0, perplexity=False), 'validation')
    >>> role("loss scale"), role("val_acc"), role("aux_loss")
    (None, None, None)
    """
    key = plain(name)
    words = key.split("_")
    if key in ("train", "training"):  # a loss by itself: `{"steps": …, "train": …, "val": …}`
        return Role("train", rank=200)
    if key in HELD_OUT:
        return Role("validation", "validation" if key != "test" else "test", rank=200)
    for kind, known in (
        ("step", STEPS),
        ("epoch", EPOCHS),
        ("rate", RATES),
        ("norm", NORMS),
        ("tokens", TOKENS),
        ("speed", SPEEDS),
        ("seconds", SECONDS),
    ):
        bare = key.removeprefix("train_").removeprefix("training_")
        for candidate in (key, bare):
            if candidate in known:
                return Role(kind, rank=known.index(candidate) + 100 * (candidate != key))
    if words[0] == "lr" or (words[0] in ("train", "optim", "optimizer") and "lr" in words[1:]):
        return Role("rate", rank=50)
    return _loss(key, words)


@lru_cache(maxsize=4096)
def is_wanted(name: str) -> bool:
    """Whether a diagnosis has a use for a number of this name.

    >>> is_wanted("loss"), is_wanted("eval_accuracy"), is_wanted("mfu"), is_wanted("vocab_size")
    (True, True, False, True)
    """
    key = plain(name)
    return (
        role(name) is not None
        or key in REWARDS
        or key in PREFERENCES
        or any(key in known for known in SETTINGS.values())
        or key == "train_runtime"
        or bool({"accuracy", "acc", "f1"} & set(key.split("_")))
    )


def _loss(key: str, words: list[str]) -> Role | None:
    """Losses and perplexities, of training or of a held-out set."""
    perplexity = "ppl" in words or "perplexity" in words
    measured = perplexity or any(word in ("loss", "losses", "nll", "xent") for word in words)
    if not measured and "cross_entropy" not in key:
        return None
    if any(word in PARTS for word in words) and "cross_entropy" not in key:
        return None
    marks = [word for word in words if word in HELD_OUT]
    if marks:
        # `eval_valid_loss`: the first mark says that it was evaluated, the second on what.
        named = marks[1:] if marks[0] in ("eval", "evaluation") else marks
        named = [mark for mark in dict.fromkeys(named) if mark == "test" or len(marks) > 1][:1]
        if marks[0] not in ("eval", "evaluation"):
            named = [mark for mark in named if mark == "test"]
        rest = [w for w in words if w not in FILLERS and w not in HELD_OUT]
        rank = 2 * perplexity + ("step" in words)
        return Role("validation", "_".join(named + rest) or "validation", rank, perplexity)
    rest = [w for w in words if w not in FILLERS]
    order = ("loss", "train_loss", "training_loss", "lm_loss", "ce_loss")
    bare = key if key in order else key.replace("loss_train", "train_loss")
    rank = order.index(bare) if bare in order else 10 + 5 * len(rest) + 40 * perplexity
    return Role("train", "", rank, perplexity)
