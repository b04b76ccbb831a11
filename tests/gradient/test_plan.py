"""How many steps a training makes and when it evaluates, by a clock that only steps and evaluations
move.
"""

import attrs
import pytest
from raising import raises

from textgen import Engine, PipelineError
from textgen.gradient import GradientOptions, constant, cosine, warmup_stable_decay
from textgen.gradient.plan import Plan


@attrs.define
class Training:
    """What came of a plan."""

    plan: Plan
    seconds: float = 0.0
    evaluations: list[int] = attrs.field(factory=list)
    decided_at: int = 0


def train(length, schedule, pace=lambda step: 0.1, evaluation=0.5, elapsed=0.0, guess=0.0):
    """A training whose steps take `pace(step)` seconds."""
    plan = Plan(GradientOptions(length=length), 50, schedule, guess)
    made, step, evaluated = Training(plan), 0, -1
    while True:
        if plan.is_due(step, evaluated):
            evaluated = step
            plan.evaluated()
            made.evaluations.append(step)
            made.seconds += evaluation
        if plan.steps is not None and step >= plan.steps:
            return made
        step, begun = step + 1, made.seconds
        made.seconds += pace(step)
        plan.step_done(step, begun + elapsed)
        if plan.steps is not None:
            made.decided_at = made.decided_at or step


def test_a_time_is_decided_once_when_the_decay_begins():
    made = train("100s", warmup_stable_decay(warmup=20, decay=0.5))
    assert made.decided_at == made.plan.steps_before_decay
    assert made.plan.steps_before_decay == pytest.approx(made.plan.steps / 2, abs=4)
    assert 90 < made.seconds < 100
    assert len(made.evaluations) == 10
    assert made.evaluations[-1] == made.plan.steps


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_the_pace_is_that_of_all_steps_so_far(factor):
    """A machine that was busy at the beginning, or idle, still ends in time."""
    schedule = warmup_stable_decay(decay=0.3)
    made = train("100s", schedule, lambda step: 0.1 * (factor if step < 30 else 1.0))
    assert 85 < made.seconds < 103


@pytest.mark.parametrize("schedule", [constant, warmup_stable_decay(decay=0.0)])
def test_a_rate_that_never_falls_ends_when_the_time_is_over(schedule):
    made = train("100s", schedule, lambda step: 0.1 if step < 500 else 0.2)
    assert made.plan.steps == made.plan.steps_before_decay == made.decided_at
    assert 90 < made.seconds < 100


def test_a_rate_that_falls_from_the_first_step_is_decided_as_soon_as_the_pace_is_known():
    made = train("100s", cosine())
    assert 30 <= made.decided_at < 40
    assert 90 < made.seconds < 100


def test_slow_evaluations_are_fewer_and_the_time_of_the_whole_run_counts():
    made = train("100s", warmup_stable_decay(), evaluation=6.0, elapsed=20.0)
    assert 1 < len(made.evaluations) <= 4
    assert 65 < made.seconds < 80


@pytest.mark.parametrize(("evaluation", "most"), [(3.0, 4), (6.0, 2), (12.0, 1), (20.0, 1)])
def test_evaluations_take_their_share_of_the_time_even_before_one_is_timed(evaluation, most):
    """`most` times 0.13 of the time, and the one at the end whatever it takes."""
    for off in (0.7, 1.0, 1.4):
        made = train("100s", constant, evaluation=evaluation, guess=off * evaluation / 0.1)
        assert most - (off > 1.0) <= len(made.evaluations) <= most + (off < 1.0)
        assert 85 < made.seconds < 95 + max(1.0, (1 - off) * evaluation)
    slow = train("100s", constant, evaluation=300.0, guess=3000.0)
    assert len(slow.evaluations) == 1
    assert slow.evaluations[0] > 400  # it has trained for its share all the same


def test_a_run_whose_time_is_over_ends_after_a_step():
    made = train("10s", warmup_stable_decay(), elapsed=11.0)
    assert (made.plan.steps, made.evaluations) == (1, [1])


@pytest.mark.parametrize(
    ("length", "steps", "evaluations"),
    [("2 epochs", 100, 8), ("1 epoch", 50, 8), ("120 steps", 120, 8), ("30 epochs", 1500, 30)],
)
def test_steps_and_epochs_are_evaluated_each_epoch_or_eighth(length, steps, evaluations):
    made = train(length, warmup_stable_decay(decay=0.5))
    assert (made.plan.steps, len(made.evaluations)) == (steps, evaluations)
    assert made.plan.steps_before_decay == steps // 2 + 1


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    ("length", "steps"),
    [("4 epochs or 100s", 200), ("1 epoch or 1h", 50), ("5 min or 70 steps", 70)],
)
def test_of_passes_and_a_time_the_shorter_counts(length, steps, decay):
    made, alone = (
        train(each, warmup_stable_decay(decay=decay)) for each in (length, f"{steps} steps")
    )
    plans = [(each.plan.steps, each.plan.steps_before_decay) for each in (made, alone)]
    assert plans == [(steps, steps - int(decay * steps) + (decay > 0))] * 2
    assert 2 <= len(made.evaluations) <= 10


@pytest.mark.parametrize("schedule", [constant, cosine(), warmup_stable_decay(decay=0.9)])
@pytest.mark.parametrize(("pace", "passes"), [(0.1, 99), (9.0, 3)])
def test_a_time_counts_beside_passes_that_take_longer(schedule, pace, passes):
    lengths = f"{passes} epochs or 300s", "300s"
    timed, alone = (train(each, schedule, lambda step: pace, pace) for each in lengths)
    assert (timed.plan.steps, timed.decided_at) == (alone.plan.steps, alone.decided_at)
    assert timed.evaluations == alone.evaluations


@pytest.mark.parametrize(
    "wrong", ["60", "0s", "ten minutes", "5 days", "1.5 steps", "0 epochs", "5s or 6s", "5s or"]
)
def test_a_length_that_is_none_is_refused(wrong):
    tables = {"corpus": {"type": "story"}, "model": {"type": "rnn"}, "tokenizer": {"type": "char"}}
    with raises(PipelineError, argument="trainer.length"):
        Engine().pipeline({**tables, "trainer": {"type": "sgd", "length": wrong}})
