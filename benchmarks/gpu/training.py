"""Training on the device: how long to an accuracy, whether it repeats, whether two processes make the same steps.

Only `deploypipe.training` takes part, without files: the rest of deploypipe needs packages that a bare machine lacks.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from checks import PROJECT, Asked, Found, missing
from report import Failed, NotRun

if TYPE_CHECKING:
    import torch

    from deploypipe.data import Dataset
    from deploypipe.training.config import TrainConfig
    from deploypipe.training.loop import Loop

LOOKS = 20
"""How often a training is evaluated on its way, off its clock."""
WARM_UP = 20
"""Steps of another training beforehand, not timed: a GPU loads its kernels when they are first used."""
QUICK = 2_560
"""Images that a quick training is trained on."""


def time_to_99(asked: Asked) -> Found:
    return _time_to(asked, "fast", 0.99, seeds=5)


def time_to_99_5(asked: Asked) -> Found:
    return _time_to(asked, "accurate", 0.995, seeds=3)


def repeatable(asked: Asked) -> Found:
    """Two trainings of one seed end in the same bits, with each recipe; one of another seed does not."""
    from deploypipe.training.device import deterministic_kernels, resolve_device

    dataset, device = _drawn(asked.quick), resolve_device(asked.device)
    digests = []
    for recipe in ("fast", "accurate"):

        def digest(seed: int, recipe: str = recipe) -> str:
            config = _configured(recipe, dataset, device, 2 * len(dataset.train))
            config = replace(config, seed=seed, deterministic=True)
            with deterministic_kernels(True):
                return _digest(_trained(config, dataset, device))

        first, second, other = digest(0), digest(0), digest(1)
        if first != second:
            raise Failed(f"recipe {recipe}: the same seed gave other weights, {first[:12]} and {second[:12]}")
        if first == other:
            raise Failed(f"recipe {recipe}: another seed gave the same weights, so this check sees nothing")
        digests.append(f"{recipe} {first[:12]}")
    return Found(f"two trainings each gave the same weights, bit for bit; their sha256: {', '.join(digests)}")


def two_processes(asked: Asked) -> Found:
    """A training on two processes (NCCL on GPUs, gloo on the CPU) has the losses of one on one process."""
    from deploypipe.training.device import resolve_device

    dataset, device = _drawn(asked.quick), resolve_device(asked.device)
    alone = _trained(_for_two(dataset, device), dataset, device)
    with tempfile.TemporaryDirectory(prefix="deploypipe-gpu-") as scratch:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        options = [scratch, asked.device, "quick" if asked.quick else "whole"]
        done = subprocess.run([*launcher, str(Path(__file__)), *options], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"torchrun ended with {done.returncode}: {_reason(done.stderr)}")
        ranks = [json.loads((Path(scratch) / f"{rank}.json").read_text()) for rank in (0, 1)]
    if ranks[0]["digest"] != ranks[1]["digest"]:
        raise Failed(f"{ranks[0]['backend']}: the two processes ended with different weights")
    expected = [row["loss"] for row in alone.history]
    pairs = list(zip(expected, ranks[0]["losses"], strict=True))
    apart = max(abs(one - two) / one for one, two in pairs)
    losses = ", ".join(f"{one:.5f} and {two:.5f}" for one, two in pairs)
    if apart > 0.01:
        raise Failed(f"{ranks[0]['backend']}: losses by epoch of one process and of two: {losses}")
    return Found(f"{ranks[0]['backend']}: losses by epoch of one process and of two: {losses}")


# --- What the checks share --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """One training."""

    seconds: float
    to_target: float | None
    """Seconds until the first evaluation that reached the target; None where none did."""
    accuracy: float
    """At the end, on the test set."""
    examples: int


def _time_to(asked: Asked, recipe: str, target: float, seeds: int) -> Found:
    from deploypipe.training.device import resolve_device

    device = resolve_device(asked.device)
    dataset, lacking = _images()
    config = _configured(recipe, dataset, device, QUICK if asked.quick else None)
    _trained(config, dataset, device, steps=1 if asked.quick else WARM_UP)
    timed = [_timed(replace(config, seed=seed), dataset, device, target) for seed in range(1 if asked.quick else seeds)]
    seconds = statistics.median(found.seconds for found in timed)
    rate = statistics.median(found.examples / found.seconds for found in timed)
    text = (f"{_spread([100 * found.accuracy for found in timed], ' %')} of the test images after {seconds:.2f} s; "
            f"{rate:,.0f} images/s; {config.precision}, {_count(len(timed), 'seed')}")  # fmt: skip
    if lacking:
        return Found(f"{lacking}, so on scikit-learn's digits: {text}", partly=True)
    if asked.quick:
        return Found(f"a short training, the target is not tried: {text}", partly=True)
    times = [found.to_target for found in timed if found.to_target is not None]
    if len(times) < len(timed):
        raise Failed(f"{len(times)} of {len(timed)} seeds reached {target:.1%}: {text}")
    return Found(f"{_spread(times, ' s')} to it; {text}")


def _images() -> "tuple[Dataset, str]":
    """MNIST; else the digits, and why not MNIST. NotRun where neither is there."""
    from deploypipe.data import load_dataset, source_of

    named = os.environ.get("DEPLOYPIPE_DATA_DIR")
    for folder in [*([Path(named)] if named else []), PROJECT.parent / "shared" / "mnist"]:
        if source_of("mnist").is_present(folder):
            return load_dataset("mnist", folder), ""
    lacking = "MNIST is missing (neither in $DEPLOYPIPE_DATA_DIR nor in ../shared/mnist)"
    if missing(["sklearn"]):
        raise NotRun(f"{lacking}, and so is scikit-learn with its digits")
    return load_dataset("digits", PROJECT), lacking


def _drawn(quick: bool) -> "Dataset":
    """12,800 images (1,280 for a quick check) of ten patterns under noise, drawn with a fixed seed: something to learn
    where there are no data."""
    import torch

    from deploypipe.data import Dataset, Split

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (1_280 if quick else 12_800,), generator=generator)
    patterns = torch.randint(0, 128, (10, 1, 28, 28), generator=generator)
    noise = torch.randint(0, 128, (len(labels), 1, 28, 28), generator=generator)
    images = (patterns[labels] + noise).to(torch.uint8)
    return Dataset("drawn", "", Split(images, labels), Split(images[:1000], labels[:1000]), tuple("0123456789"))


def _configured(recipe: str, dataset: "Dataset", device: "torch.device", examples: int | None) -> "TrainConfig":
    """The recipe as a training of `examples` images uses it; None: of as many as the recipe has."""
    from deploypipe.training.config import configure
    from deploypipe.training.device import resolve_precision

    config = configure(recipe, options={"device": str(device)})
    wanted = examples or config.examples
    assert wanted is not None
    return replace(config, epochs=wanted / len(dataset.train), precision=resolve_precision(config.precision, device))


def _for_two(dataset: "Dataset", device: "torch.device") -> "TrainConfig":
    """What one process and two train alike: in float32, whose rounding hides no difference."""
    return replace(_configured("fast", dataset, device, 2 * len(dataset.train)), precision="float32")


def _trained(config: "TrainConfig", dataset: "Dataset", device: "torch.device", steps: int | None = None) -> "Loop":
    """A training to its end, or for so many steps."""
    from deploypipe.training.loop import Loop

    loop = Loop(config, dataset, device)
    while not loop.done and (steps is None or loop.step < steps):
        _advance(loop)
    loop.standing()  # waits for the device
    return loop


def _advance(loop: "Loop") -> None:
    loop.advance()
    if loop.at_epoch_end:
        loop.finish_epoch()


def _timed(config: "TrainConfig", dataset: "Dataset", device: "torch.device", target: float) -> Timed:
    from deploypipe.training.loop import Loop

    loop = Loop(config, dataset, device)
    every = max(loop.all_steps // LOOKS, 1)
    seconds, to_target, accuracy = 0.0, None, 0.0
    begun = time.perf_counter()
    while not loop.done:
        _advance(loop)
        if loop.step % every == 0 or loop.done:
            loop.standing()  # waits for the device
            seconds += time.perf_counter() - begun
            accuracy = _accuracy(loop, dataset)
            if to_target is None and accuracy >= target:
                to_target = seconds
            begun = time.perf_counter()
    return Timed(seconds, to_target, accuracy, loop.examples)


def _accuracy(loop: "Loop", dataset: "Dataset") -> float:
    """On the test set, of what the training has come to; its state stays what it was."""
    from torch.func import functional_call

    from deploypipe.evaluate import evaluate

    module, weights = loop.module.eval(), loop.weights()
    found = evaluate(lambda batch: functional_call(module, weights, batch), dataset.test, loop.device)
    module.train()
    assert found.accuracy is not None
    return found.accuracy


def _digest(loop: "Loop") -> str:
    """sha256 of all weights' bytes."""
    import hashlib

    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(loop.weights().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _spread(values: list[float], unit: str) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}{unit}"
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f} to {max(values):.2f})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _reason(text: str) -> str:
    """The lines that say why, of what torchrun and its processes printed; torchrun adds a report of its own."""
    telling = ("Error", "Exception", "terminate called", "Signal", "exitcode")
    lines = [" ".join(line.split()) for line in text.splitlines() if any(word in line for word in telling)]
    lines = [line for line in lines if "ChildFailedError" not in line]
    return "; ".join(dict.fromkeys(lines[-4:]))[:400] or "it did not say why"


def _one_of_two(scratch: str, name: str, extent: str) -> None:
    """What each of torchrun's two processes does."""

    from deploypipe.training.device import resolve_device
    from deploypipe.training.distributed import joined
    from deploypipe.training.loop import Loop

    with joined() as group:
        dataset, device = _drawn(extent == "quick"), group.place(resolve_device(name))
        loop = Loop(_for_two(dataset, device), dataset, device, group)
        while not loop.done:
            _advance(loop)
        backend = "NCCL" if device.type == "cuda" else "gloo"
        found = {"losses": [row["loss"] for row in loop.history], "digest": _digest(loop), "backend": backend}
        (Path(scratch) / f"{group.rank}.json").write_text(json.dumps(found))
        group.wait()


if __name__ == "__main__":
    _one_of_two(*sys.argv[1:])
