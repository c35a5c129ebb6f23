"""What is concluded from a range test and short trainings, on losses written down by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wellfit.training.lr_choice import (
    CAUTION,
    RangeTest,
    ShortTraining,
    Suggestion,
    Trial,
    choose,
    next_share,
    smooth,
    stop_reason,
    suggest,
)

LEFT_OPEN = Suggestion(2.0, 1.0, 4.0, 8.0, ("by hand",))


def trials(losses, lowest=1e-3, highest=100.0, **more):
    shares = np.geomspace(lowest, highest, len(losses)).tolist()
    return tuple(
        Trial(share, share * 0.01, loss, smooth(losses[: place + 1]), more.get("norm", 1.0), 0.01)
        for place, (share, loss) in enumerate(zip(shares, losses, strict=True))
    )


def curve(steps=101, fall=3.0, middle=0.1, edge=5.0, noise=0.0):
    """Losses that fall by `fall` around one share and rise steeply from another on."""
    shares = np.geomspace(1e-3, 100.0, steps)
    draw = np.random.RandomState(1).standard_normal(steps)
    losses = 8.0 - fall / (1 + (middle / shares) ** 2) + noise * draw
    return (losses + 2 * np.maximum(0, np.log(shares / edge)) ** 2).tolist()


@pytest.mark.parametrize(("middle", "edge"), [(0.1, 5.0), (0.01, 0.5), (1.0, 30.0)])
def test_the_marks_of_a_planted_curve_are_found(middle, edge):
    """Break: the steepest place taken half way to the lowest."""
    found = suggest(RangeTest(trials(curve(middle=middle, edge=edge)), ""))
    assert middle / 2 < found.steepest < middle * 2
    assert edge / 2.5 < found.turning < edge * 2
    assert edge < found.edge < edge * 4
    assert found.share == pytest.approx(math.sqrt(found.steepest * found.turning))
    assert f"fastest at {found.steepest:.3g} times" in found.reasons[0]
    assert f"from {found.edge:.3g} times on it rose; a tenth" in found.reasons[1]


def test_noise_on_the_losses_moves_the_marks_little():
    found = suggest(RangeTest(trials(curve(noise=0.1)), ""))
    assert 0.03 < found.steepest < 0.4 and 2.0 < found.turning < 10.0


def test_no_suggestion_without_a_fall_or_without_a_turn():
    """Breaks: any fall counts; no turn is asked for."""
    flat = suggest(RangeTest(trials(curve(fall=0.01, noise=0.05)), ""))
    assert flat.share is None and "saw no improvement" in flat.reasons[0]
    endless = suggest(RangeTest(trials(curve(edge=1e9)), ""))
    assert endless.share is None and "saw no divergence: up to 100 times" in endless.reasons[0]
    assert "raise the rates" in endless.reasons[0]
    broken = trials([4.0, math.nan], norm=math.nan)
    gone = suggest(RangeTest(broken, stop_reason(broken)))
    assert gone.share is None and "not finite within 2 steps" in gone.reasons[0]
    for nothing in (flat, endless, gone):
        choice = choose(nothing, ())
        assert (choice.share, choice.confidence) == (None, "none")
        assert choice.reasons == nothing.reasons


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([4.0] * 6 + [math.nan], "not finite"),
        ([4.0, 1.0] + [0.1] * 12 + [3.9], "4 times its lowest"),
        ([4.0] * 6 + [5.0, 6.0, 6.0], "15% above the first"),
        ([4.0, 3.5, 3.0, 3.5, 4.0, 4.2], ""),
    ],
)
def test_when_the_range_test_ends(losses, said):
    reason = stop_reason(trials(losses))
    assert (said in reason) if said else not reason


def test_a_gradient_that_is_not_finite_ends_it_too():
    assert "not finite" in stop_reason(trials([4.0, 4.0], norm=math.inf))


def trained(loss_of, shares, repeats=1, noise=0.0, steps=20):
    draw = np.random.RandomState(0)
    batches = draw.standard_normal(repeats)  # what a repeat's batches do to every rate alike
    return [
        ShortTraining(share, r, loss_of(share) + batches[r] + noise * draw.standard_normal(), steps)
        for share in shares
        for r in range(repeats)
    ]


def valley(best, width=1.0, height=0.1):
    return lambda share: 3.0 + height * (math.log2(share / best) / width) ** 2


@pytest.mark.parametrize("best", [0.05, 0.6, 2.0, 9.0, 30.0])
def test_the_walk_finds_the_best_wherever_it_lies(best):
    """From a suggestion of 2 the walk brackets the best and stops. Break: no widening at ends."""
    done = []
    while (share := next_share(LEFT_OPEN, done)) is not None:
        done += trained(valley(best), [share])
        assert len(done) <= 8
    shares = sorted(one.share for one in done)
    assert shares[0] < best < shares[-1]
    choice = choose(LEFT_OPEN, done)
    assert best / 1.1 < choice.share / CAUTION < best * 1.1


def test_a_walk_among_diverging_rates_goes_down():
    def cliff(share):
        return math.inf if share > 0.1 else 3.0 - share

    done = []
    for _ in range(7):
        share = next_share(LEFT_OPEN, done)
        if share is None:
            break
        done += trained(cliff, [share])
    choice = choose(LEFT_OPEN, done)
    assert 0.02 < choice.share <= 0.1
    assert [one.worse for one in choice.tried][-1]


def test_all_diverged_is_no_suggestion():
    done = trained(lambda share: math.inf, [0.5, 2.0, 8.0])
    choice = choose(LEFT_OPEN, done)
    assert choice.share is None and "every short training diverged" in choice.reasons[-1]


def test_what_is_significantly_worse_is_judged_within_repeats():
    """Repeats differ far more than rates; pairing takes that out.

    Break: the error from the scatter of all losses of a rate.
    """
    done = trained(valley(2.0), [0.5, 1.0, 2.0, 4.0, 8.0], repeats=3, noise=0.005)
    choice = choose(LEFT_OPEN, done)
    assert 0.001 < choice.error < 0.02
    assert [one.worse for one in choice.tried] == [True, True, False, True, True]
    assert choice.confidence == "good"
    assert "every other rate is significantly worse" in " ".join(choice.reasons)
    loose = trained(valley(2.0, height=0.01), [0.5, 1.0, 2.0, 4.0, 8.0], repeats=3, noise=0.05)
    blurred = choose(LEFT_OPEN, loose)
    assert sum(not one.worse for one in blurred.tried) > 1
    assert "cannot be told apart" in " ".join(blurred.reasons)


def test_false_alarms_are_as_rare_as_stated():
    """Of rates that do alike, few are called worse. The best of five is chosen for its luck.

    Break: a limit of half a standard error.
    """
    called = 0
    for seed in range(100):
        draw = np.random.RandomState(seed)
        done = [
            ShortTraining(share, r, 3.0 + 0.01 * draw.standard_normal(), 20)
            for share in (0.5, 1.0, 2.0, 4.0, 8.0)
            for r in range(2)
        ]
        choice = choose(LEFT_OPEN, done)
        called += sum(one.worse for one in choice.tried)
    assert called / 400 < 0.25


def test_confidence_says_how_much_evidence_there_is():
    whole = [0.5, 1.0, 2.0, 4.0, 8.0]
    twice = trained(valley(2.0), whole, repeats=2, noise=0.001)
    assert choose(LEFT_OPEN, twice).confidence == "good"
    once = choose(LEFT_OPEN, trained(valley(2.0), whole))
    assert once.confidence == "fair" and "trained once" in " ".join(once.reasons)
    edge = choose(LEFT_OPEN, trained(valley(8.0), whole))
    assert edge.confidence == "low" and "lies at the end" in " ".join(edge.reasons)
    unchecked = choose(LEFT_OPEN, ())
    assert unchecked.confidence == "low" and "--steps" in unchecked.reasons[-1]
    assert unchecked.share == pytest.approx(0.8)
