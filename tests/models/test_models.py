import subprocess
import sys

import pytest
import torch
from torch import nn

from deploypipe.errors import UsageError
from deploypipe.models import MODELS, entry_of


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_its_example_and_declares_its_axes(name: str) -> None:
    entry = entry_of(name)
    module = entry.build().eval()
    outputs = module(*entry.example())
    assert isinstance(outputs, torch.Tensor) and len(entry.outputs) == 1
    assert entry.dynamic, "every model of the zoo has a dynamic batch axis"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lean-cnn", (16 * 25) + (32 * 16 * 9) + 2 * (16 + 32) + (800 * 128 + 128) + (128 * 10 + 10)),
        ("wide-cnn", (32 * 25) + (64 * 32 * 9) + (128 * 64 * 9) + 2 * (32 + 64 + 128) + (1152 * 10 + 10)),
        ("simple-cnn", (10 * 25 + 10) + (20 * 10 * 25 + 20) + (320 * 50 + 50) + (50 * 10 + 10)),
        ("cnn", (32 * 25 + 32) + (64 * 32 * 25 + 64) + (3136 * 1024 + 1024) + (1024 * 10 + 10)),
        ("mlp", (784 * 128 + 128) + (128 * 10 + 10)),
        ("linear-regression", 2),
        ("dynamic-branch", 0),
        ("dynamic-depth", 110),
    ],
)
def test_shapes_are_the_documented_ones(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in entry_of(name).build().parameters()) == parameters


@pytest.mark.parametrize("name", ["lean-cnn", "wide-cnn"])
def test_lean_and_wide_look_at_the_middle(name: str) -> None:
    module = entry_of(name).build().eval()
    pixels = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    before = module(pixels)
    framed = pixels.clone()
    framed[:, :, [0, 1, 26, 27], :] = framed[:, :, :, [0, 1, 26, 27]] = 255
    assert torch.equal(before, module(framed))
    framed[:, :, 2, 2] = 255 - framed[:, :, 2, 2]
    assert not torch.equal(before, module(framed))


def test_normalisation_is_in_the_graph() -> None:
    module = entry_of("mlp").build().eval()
    assert isinstance(module.mean, torch.Tensor) and isinstance(module.std, torch.Tensor)
    pixels = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    before = module(pixels)
    module.mean += 10
    assert not torch.equal(before, module(pixels))
    assert {"mean", "std"} <= set(module.state_dict())


def test_dynamic_networks_follow_their_inputs() -> None:
    branch, depth, sentence = (
        entry_of(name).build().eval() for name in ("dynamic-branch", "dynamic-depth", "sentence")
    )
    x = torch.ones(1, 10)
    assert torch.equal(branch(x), x * 2) and torch.equal(branch(-x), -x + 1)
    assert torch.equal(depth(x, torch.tensor(0)), x)
    assert not torch.equal(depth(x, torch.tensor(1)), depth(x, torch.tensor(2)))
    assert sentence(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 2)


def test_dropout_is_the_cnns() -> None:
    assert [layer.p for layer in entry_of("cnn").build().modules() if isinstance(layer, nn.Dropout)] == [0.5]


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"no model 'cn'.*cnn"):
        entry_of("cn")


def test_the_catalogue_and_the_record_of_a_run_are_read_without_torch() -> None:
    """`models --help` and `status` must not wait for it."""
    code = "import sys; sys.modules['torch'] = None; import deploypipe.contract.run, deploypipe.models"
    subprocess.run([sys.executable, "-c", code], check=True)
