"""The form of a call: what is a tensor in it, what is constant, and what another call may be."""

import dataclasses
import enum
import json
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from deploypipe.contract.call import Call, CallForm
from deploypipe.contract.records import from_document, to_document
from deploypipe.contract.structure import leaf_paths
from deploypipe.errors import UsageError
from deploypipe.flat_module import FlatModule, as_call, flat_call, module_of_form, tensors_of_call

X, Y = torch.zeros(2), torch.ones(3)


class Pair(NamedTuple):
    key: Any
    value: Any


@dataclasses.dataclass
class Batch:
    input_ids: Tensor
    mask: Tensor | None = None


class Mode(enum.Enum):
    FAST = 1


class Echo(nn.Module):
    """Returns its arguments as it got them."""

    def forward(self, x: Any, /, y: Any = None, *more: Any, scale: Any = 1, batch: Any = None, **extra: Any) -> Any:
        return {"x": x, "y": y, "more": more, "scale": scale, "batch": batch, "extra": extra}


def form_of(*args: Any, **kwargs: Any) -> CallForm:
    return flat_call(Echo(), Call(*args, **kwargs)).form


@pytest.mark.parametrize(
    ("call", "paths"),
    [
        (Call(X), ["x"]),
        (Call(X, None, Y, scale=X), ["x", "more[0]", "scale"]),
        (Call([X, (Y, 3)]), ["x[0]", "x[1][0]"]),
        (Call({"ids": X, "a b": Y, 7: X}), ["x.ids", "x['a b']", "x[7]"]),
        (Call(1, [Pair(X, Y), Pair(Y, X)]), ["y[0].key", "y[0].value", "y[1].key", "y[1].value"]),
        (Call(None, batch=Batch(X)), ["batch.input_ids"]),
        (Call(X, bias=Y, extra=(X,)), ["x", "bias", "extra[0]"]),
    ],
    ids=["one", "gaps", "lists", "dict", "named tuples", "dataclass", "any keyword"],
)
def test_tensors_are_named_by_their_place(call: Call, paths: list[str]) -> None:
    flat = flat_call(Echo(), call)
    assert flat.form.paths() == paths and len(flat.inputs) == len(paths)


NESTED = Call((X, [Y, None]), Pair(X, 2), X, 3.5, scale="half", batch=Batch(X, Y), mode=Mode.FAST, size=(1, 2))


@pytest.mark.parametrize(
    "call",
    [Call(X), Call(X, scale=2), NESTED, Call([X], scale=torch.float16), Call({"a": X, "b": float("inf")})],
    ids=["plain", "constant", "nested", "dtype", "infinity"],
)
def test_a_module_is_called_as_it_was_captured(call: Call) -> None:
    flat = flat_call(Echo(), call)
    wanted = Echo()(*call.args, **call.kwargs)
    assert repr(flat.module(*flat.inputs)) == repr(wanted)
    assert all(a is b for a, b in zip(tensors_of_call(call, flat.form, "it"), flat.inputs, strict=True))
    document = json.loads(json.dumps(to_document(flat.form)))
    assert from_document(document, CallForm) == flat.form


def test_a_call_is_made_again_from_its_form_alone() -> None:
    call = Call((X, [Y, None]), Pair(X, 2), X, scale="half", batch=Batch(X, Y), size=(1, 2))
    flat = flat_call(Echo(), call)
    form = from_document(json.loads(json.dumps(to_document(flat.form))), CallForm)
    assert repr(module_of_form(Echo(), form)(*flat.inputs)) == repr(Echo()(*call.args, **call.kwargs))


def test_a_module_of_plain_tensors_is_not_wrapped() -> None:
    module = Echo()
    assert flat_call(module, Call(X, Y, X)).module is module
    assert isinstance(flat_call(module, Call(X, scale=2)).module, FlatModule)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((X, None), {"scale": 3}, "`scale` is a constant of this artifact, 2: it cannot be 3"),
        ((X, None), {"scale": 2.0}, "`scale` is a constant of this artifact, 2: it cannot be 2.0"),
        ((X, None), {"scale": X}, "`scale` is a constant of this artifact, 2: it cannot be a tensor"),
        ((X, None), {}, "`scale` must be given"),
        ((X, Y), {"scale": 2}, "`y` is a constant of this artifact, None: it cannot be a tensor"),
        ((3, None), {"scale": 2}, "`x` must be a tensor here, not 3"),
        ((X, None, Y), {"scale": 2}, "`more` must be an empty tuple, not a tuple of 1"),
        ((X,), {"scale": 2, "bias": Y}, r"`extra` must be an empty dict, not a dict of bias"),
        ((), {"scale": 2}, "missing a required"),
        ((X, None), {"scale": 2, "batch": Batch(X)}, "`batch` is a constant of this artifact, None: it cannot be a Ba"),
    ],
)  # fmt: skip
def test_another_call_is_refused_by_name(args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        form_of(X, scale=2).tensors(args, kwargs)
    assert "\n" not in str(caught.value)


def test_what_is_left_out_is_its_default() -> None:
    form = form_of(X, None, scale=1)
    assert form == form_of(X)
    for call in (Call(X), Call(X, None), Call(X, y=None, scale=1), Call(X, batch=None)):
        assert form.tensors(call.args, call.kwargs) == [X]


def test_a_dict_fits_in_any_order_and_in_place_of_an_object() -> None:
    form = form_of({"a": X, "b": Y}, batch=Batch(X, None))
    assert form.tensors(({"b": Y, "a": X},), {"batch": {"mask": None, "input_ids": X}}) == [X, Y, X]
    with pytest.raises(TypeError, match="`x` must be a dict of a, b, not a dict of a"):
        form.tensors(({"a": X},), {"batch": Batch(X)})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Call(X, object()), "it holds a object as `y`: a call may hold tensors, None, numbers"),
        (Call(X, [{X}]), r"it holds a set as `y\[0\]`"),
        (Call(), "it does not fit Echo.forward: missing a required"),
        (Call(3), "it holds no tensor"),
    ],
    ids=["object", "set", "too few", "no tensor"],
)
def test_what_cannot_be_captured_is_named(call: Call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        flat_call(Echo(), call, "it")


def test_names_become_identifiers_of_their_own() -> None:
    flat = flat_call(Echo(), Call({"a": X, "a_": Y, "b": [X]}, scale=2, x_b_0=Y, **{"class": X}))
    assert isinstance(flat.module, FlatModule)
    assert flat.module.form.paths() == ["x.a", "x.a_", "x.b[0]", "x_b_0", "class"]
    names = flat.module.identifiers()
    assert len(set(names)) == 5 and all(name.isidentifier() for name in names) and "class" not in names


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        found: Tensor = self.layer(batch["x"]) + self.seen
        return found


def test_a_flat_module_has_its_author_s_weights_under_their_names() -> None:
    module = Layers()
    flat = flat_call(module, Call({"x": X})).module
    assert list(flat.state_dict()) == list(module.state_dict())
    assert [name for name, _ in flat.named_modules()] == ["", "layer"]
    flat.eval().double()
    assert not module.training and not module.layer.training and module.layer.weight.dtype == torch.float64
    assert flat(X.double()).shape == (2,)


def test_a_call_is_a_tensor_a_tuple_a_dict_or_a_call() -> None:
    assert as_call(X, "it").args == (X,) and as_call((X, 3), "it").args == (X, 3)
    assert as_call({"x": X}, "it").kwargs == {"x": X}
    call = Call(X, scale=2)
    assert as_call(call, "it") is call and repr(Call(1, scale=2)) == "Call(1, scale=2)"
    with pytest.raises(UsageError, match="it must be a tuple of arguments"):
        as_call(3, "it")


def test_paths_of_a_structure() -> None:
    assert leaf_paths({"tuple": [None, {"constant": 3}, {"dict": [["a", None]]}]}, "x") == ["x[0]", "x[2].a"]
