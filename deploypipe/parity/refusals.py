"""What an artifact states of its sizes is tried from the other side: one step outside of a limit it must refuse its
inputs, by the name of what they break."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from deploypipe.contract.signature import Signature, sizes_of
from deploypipe.contract.sizes import parse_axis
from deploypipe.errors import first_line
from deploypipe.formats.runner import Runner
from deploypipe.parity.edges import LARGEST, edges_of, is_large
from deploypipe.parity.probes import tensors_of_sizes
from deploypipe.parity.verdict import Finding


def check_refusals(runner: Runner, example: Sequence[Tensor]) -> Finding | None:
    """Whether the artifact refuses sizes just outside of what its signature states, naming what they break. None where
    it states nothing."""
    signature = runner.signature
    if signature is None:
        return None
    tried, wrong = [], []
    for limit, inputs in _wrong_inputs(signature, example):
        tried.append(limit)
        said = _refusal(runner, inputs)
        if limit not in said:
            shapes = " ".join(str(list(tensor.shape)) for tensor in inputs)
            wrong.append(f"{shapes} must be refused for `{limit}`, but {said or 'is taken'}")
    if not tried:
        return None
    edges = edges_of(signature.limits, sizes_of(signature.inputs, example))
    large = [edge.limit for edge in edges if is_large(edge.on)]
    untried = f"; not compared on the edge, above {LARGEST}: {_listed(large)}" if large else ""
    detail = "; ".join(wrong) or f"sizes outside of {_listed(tried)} are refused by name{untried}"
    return Finding("size limits", not wrong, detail)


def _wrong_inputs(signature: Signature, example: Sequence[Tensor]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Inputs that the artifact must refuse, and what the refusal must name."""
    own, generator = sizes_of(signature.inputs, example), torch.Generator().manual_seed(0)
    for edge in edges_of(signature.limits, own):
        if not is_large(edge.outside):
            yield edge.limit, tensors_of_sizes(signature.inputs, example, edge.outside, generator)
    for place, spec in enumerate(signature.inputs):
        for axis, shown in enumerate(spec.shape):
            if isinstance(shown, str) and parse_axis(shown).multiple > 1:
                shape = list(example[place].shape)
                shape[axis] += 1
                yield str(spec), (*example[:place], example[place].new_zeros(shape), *example[place + 1 :])


def _refusal(runner: Runner, inputs: tuple[Tensor, ...]) -> str:
    """What the artifact says against inputs; "" where it takes them."""
    try:
        runner.answer(*inputs)
    except Exception as cause:
        return first_line(cause)
    return ""


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in dict.fromkeys(texts))
