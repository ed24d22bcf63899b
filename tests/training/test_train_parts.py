"""The parts that need no training: schedules, augmentation, seeds, the clock."""

import time

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from deploypipe.errors import UsageError
from deploypipe.training import optim, seeds
from deploypipe.training.augment import augment
from deploypipe.training.average import Average
from deploypipe.training.clock import Clock
from deploypipe.training.config import AugmentConfig, OptimizerConfig, ScheduleConfig
from deploypipe.training.device import deterministic_kernels, resolve_device, resolve_precision
from deploypipe.training.muon import orthogonal
from deploypipe.training.schedules import SCHEDULES


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
    steps = 1000
    schedule = lr_scheduler.OneCycleLR(reference, 1.0, total_steps=steps, cycle_momentum=False)
    for step in range(steps):
        # torch's reaches its ends one step earlier.
        assert reference.param_groups[0]["lr"] == pytest.approx(ScheduleConfig().share(step / steps), abs=0.006)
        reference.step()
        schedule.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_go_from_their_start_to_their_peak_and_their_end(name: str) -> None:
    own = [ScheduleConfig(name).share(step / 1000) for step in range(1000)]
    assert max(own) == pytest.approx(1, abs=1e-5) and min(own) > 0
    told = [ScheduleConfig(name, warmup=0.2, start=0.5, final=0.1).share(step / 1000) for step in range(1000)]
    assert told[0] == 0.5 and told[200] == 1.0 and told[:201] == sorted(told[:201])
    assert told[200:] == sorted(told[200:], reverse=True)
    assert told[-1] == pytest.approx({"constant": 1.0, "step": 0.109}.get(name, 0.1), abs=0.01)


def test_muon_makes_steps_orthogonal_and_leaves_the_rest_to_adam() -> None:
    module = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 3))
    muon, adam = optim.build(OptimizerConfig("muon", lr=0.5, momentum=0.6, adam_lr=0.25), module).param_groups
    assert [weight.ndim for weight in muon["params"]] == [4, 2] and len(adam["params"]) == 6
    assert (muon["peak"], adam["peak"]) == (0.5, 0.25)
    step = orthogonal(torch.randn(8, 18), steps=5)
    assert ((torch.linalg.svdvals(step) > 0.6) & (torch.linalg.svdvals(step) < 1.3)).all()
    assert torch.allclose(orthogonal(step.T, 5), orthogonal(step, 5).T, atol=1e-5)


def test_the_average_follows_the_weights() -> None:
    module = nn.BatchNorm1d(2)
    average = Average(module, decay=0.9)
    assert set(average.weights) == {"weight", "bias", "running_mean", "running_var"}
    with torch.no_grad():
        module.weight.fill_(3.0)
    average.update(1)
    assert torch.allclose(average.weights["weight"], torch.tensor(1 + 2 * (1 - 2 / 11)))
    for step in range(1000, 1100):
        average.update(step)
    assert torch.allclose(average.weights["weight"], torch.tensor(3.0), atol=1e-3)


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


def test_automatic_precision_is_what_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda there=there: there)
        assert resolve_precision("auto", torch.device("cpu")) == name
    assert resolve_precision("bfloat16", torch.device("cpu")) == "bfloat16"
    assert resolve_precision("auto", torch.device("mps")) == "float32"
