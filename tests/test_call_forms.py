"""Export, load and verify in the call that the module takes: nested, by keyword, constants; and its outputs."""

import dataclasses
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import deploypipe
from deploypipe import Call
from deploypipe.errors import ExportError, UsageError
from deploypipe.formats import FORMATS
from deploypipe.formats.reading import read_artifact

SUFFIXES = [(entry.name, entry.suffix) for entry in FORMATS.values()]


class KeyValue(NamedTuple):
    key: Tensor
    value: Tensor


@dataclasses.dataclass
class Batch:
    ids: Tensor
    mask: Tensor | None = None


@dataclasses.dataclass
class Answer(OrderedDict):  # type: ignore[type-arg]
    """As the outputs of Hugging Face's models are: a dataclass that is a dict of what is not None."""

    logits: Tensor | None = None
    loss: Tensor | None = None
    past: Any = None
    mode: str = "eval"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)


class Box:
    """A class that pytree knows."""

    def __init__(self, low: Tensor, high: Tensor, unit: str) -> None:
        self.low, self.high, self.unit = low, high, unit


pytree.register_pytree_node(
    Box,
    lambda box: ([box.low, box.high], box.unit),
    lambda items, unit: Box(*items, unit),
    serialized_type_name="test_call_forms.Box",
    flatten_with_keys_fn=lambda box: (
        [(pytree.GetAttrKey("low"), box.low), (pytree.GetAttrKey("high"), box.high)],
        box.unit,
    ),
)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(4, 4), nn.Embedding(10, 4)

    def forward(
        self,
        x: Tensor,
        images: list[Tensor],
        *rest: Tensor,
        batch: Batch,
        past: tuple[KeyValue, ...] = (),
        scale: float = 1,
        **extra: Tensor,
    ) -> Answer:
        hidden = self.layer(x) * scale + self.table(batch.ids).mean()
        for tensor in (*images, *rest):
            hidden = hidden + tensor.mean()
        if hidden.sum() > 0:
            hidden = hidden * 2
        grown = tuple(KeyValue(key + 1, value) for key, value in past)
        return Answer(logits=hidden + extra["bias"], past=grown)


def call_of(rows: int, length: int = 5, scale: float = 2) -> Call:
    past = (KeyValue(torch.randn(rows, 2), torch.randn(rows, 3)),)
    batch = Batch(torch.randint(0, 10, (rows, length)))
    images = [torch.randn(3), torch.randn(2)]
    return Call(torch.randn(rows, 4), images, torch.randn(2), batch=batch, past=past, scale=scale, bias=torch.randn(4))


AXES = {
    "x": {0: "rows"}, "batch.ids": {0: "rows", 1: "length"}, "past[0].key": {0: "rows"}, "past[0].value": {0: "rows"},
}  # fmt: skip


@pytest.mark.sample(1)
@pytest.mark.parametrize(("format", "suffix"), SUFFIXES)
def test_a_nested_call_in_every_format(tmp_path: Path, format: str, suffix: str) -> None:
    module, call, path = Decoder().eval(), call_of(3), tmp_path / f"m{suffix}"
    artifact = deploypipe.export(module, call.args, call.kwargs, format=format, path=path, dynamic=AXES)
    assert [spec.name for spec in artifact.signature.inputs] == [
        "x", "images[0]", "images[1]", "rest[0]", "batch.ids", "past[0].key", "past[0].value", "bias",
    ]  # fmt: skip
    assert artifact.signature == read_artifact(path).signature and artifact.provenance["model"] == "Decoder"

    runner, other = deploypipe.load(path), call_of(7, 2)
    found, wanted = runner(*other.args, **other.kwargs), module(*other.args, **other.kwargs)
    assert type(found) is Answer and found.loss is None and found.mode == "eval" and list(found) == list(wanted)
    torch.testing.assert_close(found.logits, wanted.logits, atol=1e-5, rtol=1e-5)
    assert type(found.past[0]) is KeyValue and torch.equal(found.past[0].key, wanted.past[0].key)

    wrong = call_of(3, scale=3)
    with pytest.raises(TypeError, match="`scale` is a constant of this artifact, 2: it cannot be 3"):
        runner(*wrong.args, **wrong.kwargs)
    with pytest.raises(UsageError, match="the call does not fit .*: `scale` is a constant of this artifact, 2"):
        deploypipe.verify(module, path, [wrong])
    for probes in (None, [other]):
        report = deploypipe.verify(module, path, probes)
        assert report.passed, report.reason


class Optional(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None) -> tuple[Any, ...]:
        if mask is not None:
            x = x * mask
        return (x, None, "none") if y is None else (x + y, y, "some")


X, Y = torch.rand(2, 3), torch.rand(2, 3)


@pytest.mark.parametrize(
    "exported",
    [Call(X, None, Y), Call(X, y=Y), Call(y=Y, x=X)],
    ids=["None between", "by keyword", "all by keyword"],
)
def test_an_argument_between_may_be_left_out(tmp_path: Path, exported: Call) -> None:
    path = tmp_path / "m.pt2"
    probes = [Call(Y, y=X), (X, None, X), {"x": X, "y": Y}]
    deploypipe.export(Optional().eval(), exported.args, exported.kwargs, format="pt2", path=path, probes=probes)
    runner = deploypipe.load(path)
    for call in (Call(X, None, Y), Call(X, y=Y), Call(x=X, y=Y, mask=None)):
        first, second, third = runner(*call.args, **call.kwargs)
        assert torch.equal(first, X + Y) and torch.equal(second, Y) and third == "some"
    with pytest.raises(TypeError, match="`y` must be given"):
        runner(X)


def test_one_tensor_is_a_call(tmp_path: Path) -> None:
    artifact = deploypipe.export(
        Optional().eval(), X, format="onnx", path=tmp_path / "m.onnx", dynamic={"x": {0: "rows"}}
    )
    assert [str(spec) for spec in artifact.signature.inputs] == ["x: float32[rows, 3]"]
    runner = deploypipe.load(artifact.path)
    for found in (runner(X), runner(x=X), runner(X, None, y=None)):
        assert torch.equal(found[0], X) and found[1:] == (None, "none")


class Boxes(nn.Module):
    def forward(self, box: Box, factors: dict[str, Tensor]) -> dict[Any, Any]:
        wide = Box(box.low - factors["low"], box.high + factors["high"], box.unit)
        return {"box": wide, 7: box.high, "sizes": [wide.high - wide.low, 3.5]}


def test_what_pytree_knows_and_an_input_that_is_handed_back(tmp_path: Path) -> None:
    box = Box(torch.zeros(2), torch.ones(2), "mm")
    call = Call(box, {"high": X[0, :2], "low": X[0, :2]})  # one tensor twice
    artifact = deploypipe.export(Boxes().eval(), call.args, format="onnx", path=tmp_path / "m.onnx")
    assert [spec.name for spec in artifact.signature.inputs] == ["box.low", "box.high", "factors.high", "factors.low"]
    found, wanted = deploypipe.load(artifact.path)(*call.args), Boxes()(*call.args)
    assert type(found["box"]) is Box and found["box"].unit == "mm" and torch.equal(found[7], wanted[7])
    assert torch.equal(found["box"].low, wanted["box"].low) and found["sizes"][1] == 3.5


def test_a_class_that_cannot_be_imported_comes_back_as_a_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = call_of(3)
    artifact = deploypipe.export(Decoder().eval(), call.args, call.kwargs, format="pt2", path=tmp_path / "m.pt2")
    monkeypatch.delattr(f"{__name__}.Answer")
    found = deploypipe.load(artifact.path)(*call.args, **call.kwargs)
    assert type(found) is dict and list(found) == ["logits", "loss", "past", "mode"] and found["loss"] is None


class TinyLayer:
    """As a layer of Hugging Face's caches is, which nobody registers with pytree."""

    def __init__(self) -> None:
        self.keys: Any = None
        self.dtype, self.kind, self.ready = torch.float32, Tensor, False


class TinyCache:
    def __init__(self) -> None:
        self.layers = [TinyLayer()]


class Cached(nn.Module):
    def forward(self, x: Tensor, cache: TinyCache | None = None) -> tuple[Tensor, TinyCache]:
        cache = cache or TinyCache()
        layer = cache.layers[0]
        layer.keys = torch.cat([layer.keys, x]) if layer.ready else x * 2
        layer.ready = True
        return layer.keys.sum(0), cache


def test_a_cache_goes_in_and_comes_out(tmp_path: Path) -> None:
    first = deploypipe.export(Cached().eval(), (X,), format="pt2", path=tmp_path / "first.pt2")
    assert [spec.name for spec in first.signature.outputs] == ["output_0", "output_1.layers_0.keys"]
    _, cache = deploypipe.load(first.path)(X)
    assert type(cache) is TinyCache and vars(cache.layers[0])["kind"] is Tensor and cache.layers[0].ready
    axes = {"x": {0: "new"}, "cache.layers[0].keys": {0: "past"}}
    path = tmp_path / "next.onnx"
    deploypipe.export(Cached().eval(), (X, cache), format="onnx", path=path, dynamic=axes)
    assert torch.equal(cache.layers[0].keys, X * 2)  # eager wrote to copies alone
    total, grown = deploypipe.load(path)(X, cache)
    torch.testing.assert_close(total, (X * 3).sum(0))
    assert grown.layers[0].keys.shape == (4, 3)


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        return found


class Keeps(nn.Module):
    """Changes an attribute in a branch."""

    calls: int

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.calls += 1
        return x * self.calls


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message", "remedy"),
    [
        (
            lambda: torch.jit.script(Keeps()),
            "Keeps is a script module that torch's converter does not",
            "Give the nn.Mo",
        ),
        (Lazy, "`layer.weight`: its lazy layers have not run yet", "Run the module once first"),
        (Nothing, "Nothing.forward returns no tensor", ""),
    ],
    ids=["scripted", "lazy", "no tensor"],
)
def test_what_cannot_be_exported_is_said(tmp_path: Path, make: Any, message: str, remedy: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        deploypipe.export(make(), (X,), format="onnx", path=tmp_path / "m.onnx")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "wrap",
    [lambda module: torch.compile(module, backend="eager"), nn.DataParallel],
    ids=["torch.compile", "DataParallel"],
)
def test_wrappers_are_looked_through(tmp_path: Path, wrap: Any) -> None:
    module = nn.Linear(3, 2).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        artifact = deploypipe.export(wrap(module), (X,), format="pt2", path=tmp_path / "m.pt2")
        assert deploypipe.verify(wrap(module), artifact.path).passed
    assert artifact.provenance["model"] == "Linear"
    torch.testing.assert_close(deploypipe.load(artifact.path)(X), module(X))


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.layer(x)
        return -x


@pytest.mark.sample(1)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", FORMATS)
def test_a_script_module_is_exported_with_its_branches(tmp_path: Path, format: str) -> None:
    script = torch.jit.script(Decides().eval())
    path = tmp_path / f"m{FORMATS[format].suffix}"
    artifact = deploypipe.export(script, (X,), format=format, path=path, dynamic={"x": {0: "batch"}})
    assert artifact.provenance["model"] == "Decides"
    runner = deploypipe.load(path)
    for x in (X.abs(), -X.abs(), torch.ones(1, 3)):
        torch.testing.assert_close(runner(x), script(x))


def test_an_unknown_input_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    call = call_of(3)
    with pytest.raises(UsageError, match=r"'batch' is no argument of Decoder.forward") as caught:
        deploypipe.export(
            Decoder(), call.args, call.kwargs, format="onnx", path=tmp_path / "m.onnx", dynamic={"batch": {0: "rows"}}
        )
    assert "batch.ids" in caught.value.remedy and "images[1]" in caught.value.remedy
