"""Gradients in, updated weights out: one file a method, groups by role, moments where wanted."""

from wellfit.training.optimizers.assemble import build, moments
from wellfit.training.optimizers.together import Optimizers
from wellfit.training.optimizers.width import width_factors

__all__ = ["Optimizers", "build", "moments", "width_factors"]
