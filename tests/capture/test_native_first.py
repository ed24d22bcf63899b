"""A module is traced as it is; what stops the trace is rewritten, and what sizes remain excluded is stated."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deploypipe
from deploypipe.errors import ExportError
from deploypipe.staging.trace import trace

X = torch.randn(6, 8)
ROWS = {"x": {0: "batch"}}


def sign(x: Tensor) -> Tensor:
    return x * 2 if x.sum() > 0 else x - 1


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        finally:
            pass

    return wrapper


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return sign(self.linear(x))


class Library(nn.Module):
    """Code that no compiler need understand around code that one must."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    @logged
    def forward(self, x: Tensor) -> Tensor:
        try:
            import json as _json
        except ImportError:
            _json = None
        names = {name: lambda y, scale=scale: y * scale for name, scale in (("a", 2.0), ("b", 0.5))}
        for each in names.values():
            x = each(x)
        return self.block(x)


def test_only_what_stops_the_trace_is_rewritten() -> None:
    static = trace(Library().eval(), (X,), ROWS)
    assert {code.co_name for code in static.selection or ()} == {"forward", "sign"}
    assert [site.became for site in static.sites] == ["cond"]


def test_nothing_is_rewritten_where_nothing_stops_the_trace() -> None:
    static = trace(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (X[None],), {"src": {0: "b", 1: "s"}})
    assert static.selection == frozenset() and static.limits == ()


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 8)
        self.register_buffer("ids", torch.arange(16))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(self.ids[: x.shape[1]])


class SameShape(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if x.shape == y.shape:
            return x + y
        return x * 2 + y.sum()


class Patches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, 2).mean(dim=(2, 3))


LIMITED = [
    pytest.param(Positions(), (X[None],), {"x": {0: "b", 1: "seq"}}, ("seq <= 16",), id="a table of positions"),
    pytest.param(SameShape(), (X, X[:3]), {"x": {0: "m"}, "y": {0: "n"}}, ("m != n",), id="two shapes that differ"),
    pytest.param(
        Patches(), (torch.randn(2, 1, 8, 8),), {"x": {0: "b", 2: "2*h", 3: "2*w"}}, (), id="declared multiples"
    ),
]


@pytest.mark.parametrize(("module", "example", "dynamic", "limits"), LIMITED)
def test_what_sizes_are_excluded_is_stated(module, example, dynamic, limits) -> None:
    assert trace(module.eval(), example, dynamic).limits == limits


@pytest.mark.parametrize("format", ["onnx", "pt2", "torchscript"])
def test_a_stated_limit_is_enforced(format: str, tmp_path) -> None:
    module, suffix = Positions().eval(), {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".pt"}[format]
    path = tmp_path / f"m{suffix}"
    with pytest.warns(UserWarning, match="`seq <= 16` only"):
        deploypipe.export(module, (X[None],), format=format, path=path, dynamic={"x": {0: "b", 1: "seq"}})
    runner = deploypipe.load(path)
    for rows, length in ((1, 1), (3, 16)):
        x = torch.randn(rows, length, 8)
        with torch.no_grad():
            torch.testing.assert_close(runner(x), module(x))
    with pytest.raises(TypeError, match="`seq <= 16`, and b is 1, seq is 17"):
        runner(torch.randn(1, 17, 8))
    assert deploypipe.verify(module, path).passed


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_a_multiple_and_a_range_are_declared_and_enforced(format: str, tmp_path) -> None:
    path = tmp_path / f"m.{format}"
    dynamic = {"x": {0: "b:1..4", 2: "2*h", 3: "2*w"}}
    module, example = Patches().eval(), torch.randn(2, 1, 8, 6)
    deploypipe.export(module, (example,), format=format, path=path, dynamic=dynamic)
    runner = deploypipe.load(path)
    other = torch.randn(4, 1, 2, 12)
    torch.testing.assert_close(runner(other), module(other))
    with pytest.raises(TypeError, match=r"2\*h"):
        runner(torch.randn(1, 1, 7, 8))
    with pytest.raises(TypeError, match="`b <= 4`"):
        runner(torch.randn(5, 1, 8, 8))


class Causal(nn.Module):
    """As libraries write it: no mask where there is one position, which changes nothing."""

    def forward(self, q: Tensor) -> Tensor:
        causal = q.shape[1] > 1
        return F.scaled_dot_product_attention(q, q, q, is_causal=bool(causal))


def test_a_question_about_size_1_that_changes_nothing_excludes_nothing() -> None:
    static = trace(Causal().eval(), (X[None],), {"q": {0: "b", 1: "seq"}})
    assert static.limits == () and static.selection == frozenset()


class OneRow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] == 1 else x + 1


def test_a_question_about_size_1_that_changes_something_becomes_a_branch() -> None:
    static = trace(OneRow().eval(), (X,), ROWS)
    assert [site.became for site in static.sites] == ["cond"] and static.limits == ()
    program = static.program.module()
    assert torch.equal(program(X[:1]), X[:1] * 2) and torch.equal(program(X[:2]), X[:2] + 1)


class Unrolled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = x[0]
        for row in range(1, int(x.shape[0])):
            total = total * 0.5 + x[row]
        return total


def test_a_loop_over_a_size_is_never_unrolled_in_silence() -> None:
    program = trace(Unrolled().eval(), (X,), ROWS).program.module()
    for rows in (1, 2, 9):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(program(x), Unrolled()(x))


def test_an_axis_that_the_code_pins_is_refused_with_the_line() -> None:
    class Pinned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(6, 8)

    with pytest.raises(ExportError, match=r"test_native_first\.py:\d+"):
        trace(Pinned(), (X,), ROWS)


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = x * 2
        return self.last + 1


def test_an_attribute_that_is_written_anew_is_dropped_with_a_remark() -> None:
    module = Remembers().eval()
    static = trace(module, (X,), ROWS)
    assert static.remarks == ("attribute `last` is written during forward: the artifact returns its outputs alone",)
    assert module.last is None


def test_a_refusal_is_not_its_own_cause() -> None:
    class Grows(nn.Module):
        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            if x.sum() > 0:
                return x
            return x, x

    with pytest.raises(ExportError) as caught:
        trace(Grows(), (torch.ones(2),))
    assert caught.value.__cause__ is not caught.value
