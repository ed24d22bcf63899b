"""A copy that still reaches the original is refused, and the original stays as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deploypipe
from deploypipe.eager import reference_copy
from deploypipe.errors import ExportError
from deploypipe.original import check_copy, untouched

X = torch.linspace(-1, 1, 6).reshape(2, 3)


class Hooked(nn.Module):
    """Its head reads what a hook has kept."""

    def __init__(self, hook: Callable[["Hooked"], Callable[..., Any]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.features: dict[str, Tensor] = {"h": torch.zeros(2, 4)}
        self.body.register_forward_hook(hook(self))

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        scores: Tensor = self.head(self.features["h"])
        return scores


def reaching(net: Hooked) -> Callable[..., None]:
    return lambda module, given, returned: net.features.__setitem__("h", returned.detach())


class Listening(Hooked):
    """The hook keeps something that nobody reads."""

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(x))
        return scores


@pytest.mark.parametrize("seen", [False, True], ids=["never run", "has just seen the example"])
def test_a_copy_that_reads_what_the_original_keeps_is_refused(seen: bool, tmp_path: Path) -> None:
    net = Hooked(reaching).eval()
    if seen:
        net(X)
    before, kept = dict(net.features), net.features
    with pytest.raises(ExportError, match=r"a copy of Hooked does not compute .* output 0 .* a hook or a closure"):
        deploypipe.export(net, (X,), format="pt2", path=tmp_path / "net.pt2")
    assert net.features is kept and net.features["h"] is before["h"]
    assert not (tmp_path / "net.pt2").exists()


def test_verify_refuses_it_too(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    deploypipe.export(Listening(reaching).eval(), (X,), format="pt2", path=path)
    with pytest.raises(ExportError, match="a copy of Hooked"):
        deploypipe.verify(Hooked(reaching).eval(), path)


@pytest.mark.parametrize("format", ["onnx", "pt2", "torchscript"])
def test_a_hook_that_only_listens_is_fine_and_the_original_keeps_what_it_had(format: str, tmp_path: Path) -> None:
    net = Listening(reaching).train()
    kept = net.features["h"]
    path = tmp_path / f"net.{'pt' if format == 'torchscript' else format}"
    with pytest.warns(UserWarning, match="train mode"):
        deploypipe.export(net, (X,), format=format, path=path)
    assert net.features == {"h": kept} and all(part.training for part in net.modules())


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(x.shape)


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Picky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x[0, 0] > 0:
            raise ValueError("must not be positive")
        return x


@pytest.mark.parametrize(
    "module", [nn.Linear(3, 2), Noisy(), Counts(), Picky()], ids=lambda module: type(module).__name__
)
def test_a_copy_of_its_own_is_none(module: nn.Module) -> None:
    check_copy(module, (X,))


class State:
    def __init__(self) -> None:
        self.seen, self.total = [1], 0


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.seen: list[int] = [1]
        self.names, self.state = {"a"}, State()
        self.nested = {"deep": [torch.ones(2)]}

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_whatever_is_written_is_undone() -> None:
    module = Remembers()
    module.count += torch.nan
    fresh, listed, deep = reference_copy(module), module.seen, module.nested["deep"]
    with untouched(module):
        module.train(False)
        module.count.fill_(7)
        module.seen.append(2)
        module.names.clear()
        module.state.total = 5
        module.state.seen.append(3)
        module.nested["deep"][0].zero_()
        module.nested["deep"].append(torch.zeros(1))
        module.extra = 1
        del module.nested
    assert module.training and module.seen is listed and module.seen == [1] and module.names == {"a"}
    assert module.state.total == 0 and module.state.seen == [1] and not hasattr(module, "extra")
    assert module.nested["deep"] is deep and len(deep) == 1 and deep[0].tolist() == [1, 1]
    assert torch.equal(module.count.isnan(), fresh.count.isnan())
