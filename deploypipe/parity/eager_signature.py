"""What an artifact of a module must take and return, found by running the module itself."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deploypipe.contract.signature import Axes, Signature, TensorSpec, dtype_name, sizes_of
from deploypipe.contract.sizes import parse_axis
from deploypipe.contract.structure import leaf_names
from deploypipe.eager import check_axes, eager_outputs, input_names, title_of
from deploypipe.parity.probes import Probe


def input_specs(module: nn.Module, example: tuple[Tensor, ...], dynamic: Axes) -> tuple[TensorSpec, ...]:
    """What `module` takes: the example's dtypes and sizes, but for the axes that `dynamic` names. UsageError for an
    example that does not fit `forward`, and for axes that it does not have."""
    named = dict(zip(input_names(module, example), example, strict=True))
    check_axes(dynamic, named, title_of(module))
    return tuple(
        TensorSpec(
            name,
            dtype_name(tensor.dtype),
            tuple(_axis(dynamic.get(name, {}).get(axis, size)) for axis, size in enumerate(tensor.shape)),
        )
        for name, tensor in named.items()
    )


def signature_of(module: nn.Module, inputs: tuple[TensorSpec, ...], probes: Sequence[Probe]) -> Signature:
    """The whole signature of `module`, which takes all of `probes`; the first is the example. An axis of an output is
    symbolic where its size differs between them: by the name of an input's axis that always has the same size."""
    answers = [eager_outputs(module, probe.inputs) for probe in probes]
    sizes = [sizes_of(inputs, probe.inputs) for probe in probes]
    leaves, structure = answers[0]
    outputs = []
    for index, (name, leaf) in enumerate(zip(leaf_names(structure), leaves, strict=True)):
        shapes = [found[index].shape for found, _ in answers if len(found) == len(leaves)]
        outputs.append(TensorSpec(name, dtype_name(leaf.dtype), _axes(name, shapes, sizes)))
    return Signature(inputs, tuple(outputs), structure)


def _axis(written: int | str) -> int | str:
    return parse_axis(written).shown if isinstance(written, str) else written


def _axes(name: str, shapes: Sequence[torch.Size], sizes: Sequence[dict[str, int]]) -> tuple[int | str, ...]:
    first = shapes[0]
    if any(len(shape) != len(first) for shape in shapes):
        return tuple(first)
    axes: list[int | str] = []
    for position, size in enumerate(first):
        found = [shape[position] for shape in shapes]
        symbols = [symbol for symbol in sizes[0] if found == [own[symbol] for own in sizes]]
        axes.append(size if len(set(found)) == 1 else next(iter(symbols), f"{name}_{position}"))
    return tuple(axes)
