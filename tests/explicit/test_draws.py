"""Each function that draws random numbers, from noise that is given: torch's own numbers, or torch's distribution."""

import pytest
import torch
from torch.nn import functional

from deploypipe.explicit.noise import _Drawing, _Fresh, _Given

MODULE = torch.nn.Identity()
WEIGHTS = torch.tensor([0.1, 0.2, 0.7])
MANY = 20_000

AS_THEY_ARE = {
    "randn": (lambda: torch.randn(2, 3), torch.randn),
    "randn of a size": (lambda: torch.randn(size=(2, 3)), torch.randn),
    "randn_like": (lambda: torch.randn_like(torch.zeros(2, 3)), torch.randn),
    "normal_": (lambda: torch.empty(2, 3).normal_(), torch.randn),
    "normal of tensors": (lambda: torch.normal(torch.zeros(2, 3), torch.ones(2, 3)), torch.randn),
    "rand": (lambda: torch.rand((2, 3)), torch.rand),
    "rand_like": (lambda: torch.rand_like(torch.zeros(2, 3)), torch.rand),
    "uniform_": (lambda: torch.empty(2, 3).uniform_(), torch.rand),
}


@pytest.mark.parametrize("drawing", AS_THEY_ARE)
def test_noise_is_what_torch_returns(drawing):
    forward, own = AS_THEY_ARE[drawing]
    noise = own(2, 3)
    with _Drawing(_Given([noise], MODULE), MODULE):
        assert torch.equal(forward(), noise)


def _ones(hot):
    return torch.nn.functional.one_hot(hot, 3).float().mean(0)


DISTRIBUTIONS = {
    "normal with a mean": lambda: torch.normal(2.0, 3.0, (MANY,)),
    "log_normal_": lambda: torch.empty(MANY).log_normal_(0.0, 0.25),
    "exponential_": lambda: torch.empty(MANY).exponential_(2.0),
    "geometric_": lambda: torch.empty(MANY).geometric_(0.3),
    "cauchy_, its middle": lambda: torch.empty(MANY).cauchy_(1.0, 0.5).clamp(-5, 5),
    "uniform_ of bounds": lambda: torch.empty(MANY).uniform_(-1, 3),
    "bernoulli": lambda: torch.bernoulli(torch.full((MANY,), 0.3)),
    "bernoulli_": lambda: torch.empty(MANY).bernoulli_(0.3),
    "randint": lambda: torch.randint(2, 9, (MANY,)),
    "randint of one bound": lambda: torch.randint(9, (MANY,)),
    "randint_like": lambda: torch.randint_like(torch.zeros(MANY), 2, 9),
    "randperm": lambda: torch.randperm(MANY) % 100,
    "multinomial": lambda: _ones(torch.multinomial(WEIGHTS, MANY, True)),
    "multinomial of rows": lambda: _ones(torch.multinomial(WEIGHTS.expand(MANY, 3), 1).squeeze(1)),
    "multinomial without replacement": lambda: _ones(torch.multinomial(WEIGHTS.expand(MANY, 3), 2)[:, 1]),
    "dropout": lambda: functional.dropout(torch.ones(MANY), 0.3),
    "dropout of channels": lambda: functional.dropout2d(torch.ones(100, 200, 2, 2), 0.3),
    "gumbel_softmax": lambda: functional.gumbel_softmax(WEIGHTS.log().expand(MANY, 3), hard=True).mean(0),
    "soft gumbel_softmax": lambda: functional.gumbel_softmax(WEIGHTS.log().expand(MANY, 3), 0.5).mean(0),
}


@pytest.mark.parametrize("drawing", DISTRIBUTIONS)
def test_distribution_is_torchs(drawing):
    forward = DISTRIBUTIONS[drawing]
    torch.manual_seed(1)
    expected = forward()
    with _Drawing(_Fresh(), MODULE):
        found = forward()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    middle, spread = float(expected.double().mean()), float(expected.double().std())
    if expected.numel() > 3:  # 3 numbers are shares of the categories, which are means already
        assert float(found.double().mean()) == pytest.approx(middle, abs=7 * spread / MANY**0.5)
        assert float(found.double().std()) == pytest.approx(spread, rel=0.06)
    else:
        assert torch.allclose(found, expected, atol=0.025)


@pytest.mark.parametrize("noise", [0.0, 1.0, -3.0, 1e4], ids=str)
def test_any_noise_gives_numbers_that_the_distribution_has(noise):
    """The noise of an artifact is an input: anybody may send anything."""
    given = [torch.full((5,), noise, dtype=torch.float64), torch.full((5,), noise), torch.full((1, 3), noise)]
    with _Drawing(_Given(given, MODULE), MODULE):
        whole = torch.randint(2, 9, (5,))
        waited = torch.empty(5).exponential_()
        category = torch.multinomial(WEIGHTS.unsqueeze(0), 1)
    assert set(whole.tolist()) <= set(range(2, 9))
    assert torch.isfinite(waited).all() and (waited > 0).all()
    assert 0 <= category.item() < 3
