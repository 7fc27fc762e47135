"""Rates at the steps where they are known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from alliage.errors import UsageError
from alliage.tuning.science.schedules import (
    ScheduleSettings,
    noam_peak,
    trainer_arguments,
    triangular,
)

PEAK = 0.5


def rates(settings, steps, warmup=0, width=None):
    """The rate of each step, from the schedule that the Trainer makes of the arguments."""
    from transformers import get_scheduler

    arguments = {"learning_rate": PEAK, "warmup_steps": warmup}
    arguments |= trainer_arguments(settings, width)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=arguments["learning_rate"])
    if settings.name == "triangular":
        schedule = triangular(settings, optimizer, steps)
    else:
        schedule = get_scheduler(
            arguments["lr_scheduler_type"], optimizer, arguments["warmup_steps"], steps,
            arguments.get("lr_scheduler_kwargs"),
        )  # fmt: skip
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_noam_is_the_papers_formula_with_its_published_peak():
    assert noam_peak(512, 4000) == pytest.approx(6.987712e-4, rel=1e-6)
    settings = ScheduleSettings(name="noam", warmup_steps=20)
    found = rates(settings, 60, width=16)
    expected = [16**-0.5 * min(t**-0.5, t * 20**-1.5) for t in range(1, 60)]
    assert found[1:] == pytest.approx(expected)
    assert rates(ScheduleSettings(name="noam", warmup_steps=20, width=16), 60) == found
    with pytest.raises(UsageError, match="names no width"):
        trainer_arguments(settings, None)


def test_cosine_ends_at_its_floor():
    found = rates(ScheduleSettings(name="cosine"), 110, warmup=10)
    assert found[:3] == pytest.approx([0, 0.05, 0.1])
    assert found[60] == pytest.approx((1 + 0.1) / 2 * PEAK)  # half of the way
    expected = 0.05 + 0.45 * (1 + math.cos(math.pi * 99 / 100)) / 2
    assert found[109] == pytest.approx(expected)


def test_triangular_goes_up_and_down_in_each_cycle():
    found = rates(ScheduleSettings(name="triangular", floor=0.2, cycles=2), 8)
    assert found == pytest.approx([0.1, 0.3, 0.5, 0.3, 0.1, 0.3, 0.5, 0.3])
    three = rates(ScheduleSettings(name="triangular", floor=0.0, cycles=3), 10)
    assert three[5] == pytest.approx(PEAK)  # cycles need not be whole steps


def test_constant_and_linear():
    assert rates(ScheduleSettings(name="constant"), 4, warmup=2) == [0, PEAK / 2, PEAK, PEAK]
    assert rates(ScheduleSettings(name="linear"), 4) == [PEAK, 0.375, 0.25, 0.125]


def test_a_key_of_another_schedule_is_refused():
    with pytest.raises(ValidationError, match="linear knows no floor"):
        ScheduleSettings(name="linear", floor=0.1)
    with pytest.raises(ValidationError, match="cosine knows no cycles; it knows floor"):
        ScheduleSettings(name="cosine", cycles=2)
