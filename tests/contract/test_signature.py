import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploypipe.contract.records import from_document, to_document
from deploypipe.contract.sample import Sample
from deploypipe.contract.signature import Signature, TensorSpec
from deploypipe.contract.structure import leaf_names, unflatten
from deploypipe.eager import flat_tensors
from deploypipe.formats.torch_session import to_array, to_tensor

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
    leaves, structure = flat_tensors(outputs)
    back = unflatten(leaves, structure)
    assert repr(back) == repr(outputs)  # types, nesting, keys and values
    assert len(leaf_names(structure)) == len(leaves)


@dataclass
class Scored:
    boxes: torch.Tensor
    best: int


def test_dataclasses_become_dicts_and_numbers_tensors() -> None:
    leaves, structure = flat_tensors(Scored(torch.zeros(2), 3))
    assert structure == {"object": [f"{__name__}:Scored", [["boxes", None], ["best", None]]]}
    assert unflatten(leaves, structure) == {"boxes": leaves[0], "best": leaves[1]}
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
    assert leaf_names(flat_tensors(outputs)[1]) == names


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="not set"):
        flat_tensors({"text": {"no"}})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float16, torch.bfloat16, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_samples_survive_json(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 9).to(dtype)
    array = to_array(tensor)
    back = from_document(json.loads(json.dumps(to_document(Sample.of([array], [array])))), Sample)
    assert torch.equal(to_tensor(back.inputs[0]), tensor) and to_tensor(back.outputs[0]).dtype == dtype


def test_signatures_survive_json() -> None:
    signature = Signature((TensorSpec("x", "uint8", ("batch", 1)),), (TensorSpec("y", "float32", (2,)),), None)
    assert from_document(json.loads(json.dumps(to_document(signature))), Signature) == signature
    assert str(signature.inputs[0]) == "x: uint8[batch, 1]"
