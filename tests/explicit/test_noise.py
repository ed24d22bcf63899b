"""A module that draws random numbers, exported with its noise as an input."""

import pytest
import torch
from torch import nn

import deploypipe
from deploypipe.capture import capture
from deploypipe.errors import ExportError, UsageError

X = torch.randn(2, 8)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(8, 6), nn.Linear(3, 8)

    def forward(self, x, scale=1.0):
        mean, spread = self.encode(x).chunk(2, -1)
        return self.decode(mean + scale * torch.randn_like(mean) * torch.exp(spread / 2))


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(8, 5)

    def forward(self, x):
        choice = torch.distributions.Categorical(logits=self.score(x))
        action = choice.sample()
        return action, choice.log_prob(action)


class Steps(nn.Module):
    """A number for each step and one for each row of `x`, with a parameter that is called as ours would be."""

    def forward(self, x, noise):
        sample = torch.randn(x.shape[0], 2 * x.shape[1])
        for _ in range(3):
            sample = sample * 0.9 + 0.1 * torch.rand_like(sample)
        return sample + noise


class InABranch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + torch.randn(8)
        return x


class InALoop(nn.Module):
    def forward(self, x):
        while x.sum() < 100:
            x = x + torch.rand(8)
        return x


class Halved(nn.Module):
    def forward(self, x):
        return torch.randn(x.shape[0] // 2).sum() + x


class Poisson(nn.Module):
    def forward(self, x):
        return torch.poisson(x.abs())


class Quiet(nn.Module):
    def forward(self, x):
        return x * 2


@pytest.mark.parametrize("format", ["onnx", "pt2", "torchscript"])
def test_artifact_returns_what_eager_returns_for_the_same_draws(format, tmp_path):
    module, path = Encoder().eval(), tmp_path / {"onnx": "m.onnx", "pt2": "m.pt2", "torchscript": "m.pt"}[format]
    deploypipe.export(module, (X,), format=format, path=path, dynamic={"x": {0: "batch"}}, random="input")
    x = torch.randn(5, 8)
    torch.manual_seed(3)
    expected = module(x)
    torch.manual_seed(3)
    found = deploypipe.load(path)(x, noise=[torch.randn(5, 3)])
    assert torch.allclose(found, expected, atol=1e-5)
    assert deploypipe.verify(module, path).passed
    assert deploypipe.verify(module, path, example=(X,)).passed  # without its noise: some is drawn


def test_draws_of_a_distribution_are_inputs():
    captured = capture(Policy(), (X,), {"x": {0: "batch"}}, random="input")
    assert [str(spec) for spec in captured.signature.inputs][1:] == ["noise[0]: float32[batch, 1, 5]"]


def test_noise_follows_the_axes_of_the_inputs_under_a_name_that_is_free():
    captured = capture(Steps(), (X, torch.zeros(())), {"x": {0: "batch", 1: "width"}}, random="input")
    assert [str(spec) for spec in captured.signature.inputs][2:] == [
        f"noise_[{i}]: float32[batch, 2*width]" for i in range(4)
    ]


def test_module_that_draws_nothing_takes_no_noise():
    captured = capture(Quiet(), (X,), random="input", state="explicit")
    assert [spec.name for spec in captured.signature.inputs] == ["x"]


def test_module_and_global_generator_stay_as_they_were():
    module = Encoder().train()
    before = torch.get_rng_state()
    capture(module, (X,), random="input")
    assert torch.equal(torch.get_rng_state(), before)
    assert type(module) is Encoder and module.training and "forward" not in vars(module)


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (InABranch(), "in a branch or a loop that depends on the input"),
        (InALoop(), "in a branch or a loop that depends on the input"),
        (Halved(), "axis 0 of random draw 0 follows the input"),
        (Poisson(), "by torch.poisson, which has no form that takes its noise as an input"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_draws_without_a_fixed_place_are_refused(module, says):
    with pytest.raises(ExportError, match=says):
        capture(module, (X.abs(),), {"x": {0: "batch"}}, random="input")


def test_refusal_without_the_option_names_it():
    with pytest.raises(ExportError) as caught:
        capture(Encoder(), (X,))
    assert 'random="input" (--random input)' in caught.value.remedy


@pytest.mark.parametrize("option", ["random", "state"])
def test_other_words_are_refused(option):
    with pytest.raises(UsageError, match=f"{option} is 'yes'"):
        capture(Quiet(), (X,), **{option: "yes"})
