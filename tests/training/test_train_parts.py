"""The parts that need no training: schedules, augmentation, seeds, the clock."""

import time

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from deploypipe.errors import UsageError
from deploypipe.training import optim, seeds
from deploypipe.training.augment import AugmentConfig, augment
from deploypipe.training.clock import Clock
from deploypipe.training.device import deterministic_kernels, resolve_device


def test_augmentation_moves_what_it_should() -> None:
    image = torch.zeros(64, 1, 28, 28, dtype=torch.uint8)
    image[:, :, 12:16, 12:16] = 200
    numbers = torch.rand(4, 64)
    assert torch.equal(augment(image, AugmentConfig(), numbers), image)
    moved = augment(image, AugmentConfig(shift=3), numbers)
    assert moved.dtype == torch.uint8 and moved.shape == image.shape
    for axis, positions in ((3, torch.arange(28)), (2, torch.arange(28))):
        weight = moved.float().sum(dim=(1, axis))
        centre = (weight * positions).sum(1) / weight.sum(1)
        assert (centre - 13.5).abs().max() <= 3.01 and centre.std() > 1
    larger = augment(image, AugmentConfig(scale=0.5), numbers).float().sum(dim=(1, 2, 3))
    assert larger.max() > 1.5 * 16 * 200 and larger.min() < 0.7 * 16 * 200
    turned = augment(image, AugmentConfig(rotate=45), numbers)
    assert not torch.equal(turned, image)
    assert torch.equal(augment(image[5:9], AugmentConfig(3, 9, 0.1), numbers[:, 5:9]),
                       augment(image, AugmentConfig(3, 9, 0.1), numbers)[5:9]), "each image by itself"  # fmt: skip


def test_one_cycle_is_torchs() -> None:
    weight = nn.Parameter(torch.zeros(1))
    reference = torch.optim.SGD([weight], lr=1.0)
    steps = 100
    schedule = lr_scheduler.OneCycleLR(reference, 1.0, total_steps=steps, cycle_momentum=False)
    for step in range(steps):
        # torch's reaches its ends one step earlier.
        assert reference.param_groups[0]["lr"] == pytest.approx(optim.one_cycle(step / steps), abs=0.04)
        reference.step()
        schedule.step()


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_schedules_stay_within_the_peak(name: str) -> None:
    shares = [optim.SCHEDULES[name](step / 1000) for step in range(1000)]
    assert max(shares) == pytest.approx(1, abs=1e-5) and min(shares) > 0
    assert shares[-1] <= max(shares)


def test_seeds_are_far_apart_and_always_the_same() -> None:
    found = [seeds.derived(seed, purpose, number)
             for seed in range(20) for purpose in ("step", "order") for number in range(100)]  # fmt: skip
    assert len({seed % 2**32 for seed in found}) == len(found)
    assert seeds.derived(0, "step", 1) == 17098291462608958695
    assert sorted(seeds.permutation(10, 0, "order").tolist()) == list(range(10))
    torch.manual_seed(3)
    again = seeds.permutation(100, 0, "order", 1)
    assert torch.equal(again, seeds.permutation(100, 0, "order", 1)), "whatever was drawn before"
    assert not torch.equal(again, seeds.permutation(100, 0, "order", 2))


def test_phases_add_up() -> None:
    clock = Clock()
    begun = time.perf_counter()
    with clock.phase("outer"):
        outer = clock.read("outer")
        with clock.phase("inner"):
            assert clock.read("inner") > 0
        assert clock.read("outer") > outer
    assert sum(clock.seconds.values()) <= time.perf_counter() - begun
    clock.add("outer", 10)
    assert clock.read("outer") > 10


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"device 'tpu' is not there.*cpu"):
        resolve_device("tpu")
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="'cpu:x' is no device"):
        resolve_device("cpu:x")


def test_deterministic_kernels_are_asked_for_and_given_back() -> None:
    for wanted in (True, False):
        with deterministic_kernels(wanted):
            assert torch.are_deterministic_algorithms_enabled() is wanted
        assert not torch.are_deterministic_algorithms_enabled()
