from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploypipe.signature import Sample, Signature, TensorSpec, flatten, leaf_names, unflatten

tensors = st.integers(0, 5).map(lambda size: torch.arange(size, dtype=torch.float32))
nested = st.recursive(
    tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(nested)
def test_unflatten_is_the_inverse_of_flatten(outputs: Any) -> None:
    leaves, structure = flatten(outputs)
    back = unflatten(leaves, structure)
    assert repr(back) == repr(outputs)  # types, nesting, keys and values
    assert len(leaf_names(structure)) == len(leaves)


@dataclass
class Scored:
    boxes: torch.Tensor
    best: int


def test_dataclasses_become_dicts_and_numbers_tensors() -> None:
    leaves, structure = flatten(Scored(torch.zeros(2), 3))
    assert structure == {"dict": [["boxes", None], ["best", None]]}
    assert leaves[1].item() == 3 and leaves[1].shape == ()
    assert leaf_names(structure) == ["boxes", "best"]


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (torch.zeros(1), ["output"]),
        ((torch.zeros(1), torch.zeros(1)), ["output_0", "output_1"]),
        ({"a": torch.zeros(1), "b": (torch.zeros(1),)}, ["a", "b_0"]),
        ([{"x": torch.zeros(1)}], ["output_0.x"]),
    ],
    ids=["tensor", "tuple", "dict", "list of dicts"],
)
def test_leaf_names(outputs: Any, names: list[str]) -> None:
    assert leaf_names(flatten(outputs)[1]) == names


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="not str"):
        flatten({"text": "no"})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float16, torch.bfloat16, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_samples_survive_json(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 9).to(dtype)
    back = Sample.from_json(Sample((tensor,), (tensor,)).to_json())
    assert torch.equal(back.inputs[0], tensor) and back.outputs[0].dtype == dtype


def test_signatures_survive_json() -> None:
    signature = Signature((TensorSpec("x", "uint8", ("batch", 1)),), (TensorSpec("y", "float32", (2,)),), None)
    assert Signature.from_json(signature.to_json()) == signature
    assert str(signature.inputs[0]) == "x: uint8[batch, 1]"
