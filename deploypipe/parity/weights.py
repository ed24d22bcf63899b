"""Are the weights in a file the module's, to the bit?

A weight is looked for by its name, then by its bits in any order of its axes, for exporters transpose and rename. One
that an exporter computed something from (folded a normalisation, merged an adapter) is not in the file as it is: then
the values alone can judge. But what has its name, or most of its values, and is not it, has been changed.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from deploypipe.contract.signature import dtype_name
from deploypipe.formats.inspection import Inspection
from deploypipe.parity.verdict import Finding
from deploypipe.torch_compat.quantized import hidden_weights

CHECK = "weights"
RECOGNISABLE = 8
"""A tensor of fewer values is like another by chance."""
NARROW = (torch.float16, torch.bfloat16)
EPSILON = 1e-5
"""PyTorch's for a batch normalisation; a traced module does not say which it has."""


def check_weights(module: nn.Module, constants: Mapping[str, Tensor]) -> Finding:
    """Whether `constants` hold every parameter and buffer of `module` that they hold in any form. The detail counts
    what is equal, or names the first weight that was changed, its worst element and both values."""
    weights = {name: tensor.detach().cpu() for name, tensor in _named(module) if tensor.numel()}
    held = {name: tensor.detach().cpu() for name, tensor in constants.items() if tensor.numel()}
    if not weights:
        return Finding(CHECK, True, "the module has no weights")
    named = _by_name(weights, held)
    index = _Index(held)
    equal: set[str] = set()
    used: set[str] = set()
    for name, weight in weights.items():
        match = index.find(weight, named.get(name, ""), exactly=name in held)
        if match:
            equal.add(name)
            used.add(match)
    folded, changed, absent = [], [], []
    for name in [name for name in weights if name not in equal]:
        weight, other = weights[name], named.get(name, "")
        if other and _is_folded(module, name, weight, held[other]):
            folded.append(name)
            continue
        other = other or _similar(weight, {key: value for key, value in held.items() if key not in used})
        if not other or _is_computed(module, name, held[other]):
            absent.append(name)
        else:
            changed.append((name, other))
    if changed:
        more = f"; and {len(changed) - 1} more weights of {len(weights)}" if len(changed) > 1 else ""
        name, other = changed[0]
        return Finding(CHECK, False, _difference(name, other, weights[name], held[other]) + more)
    detail = f"{len(equal)} of {len(weights)} weights equal to the bit"
    if folded:
        detail += f", {len(folded)} as folding a batch normalisation into them gives"
    if absent:
        detail += f", {len(absent)} not in the file as they are: judged by values alone ({_listed(absent)})"
    return Finding(CHECK, True, detail)


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tied weights under each of their names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
    yield from hidden_weights(module)


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:2])) + (", …" if len(names) > 2 else "")


def _by_name(weights: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> dict[str, str]:
    """A weight's name → that in the file: the same, or the only one that ends in it or that it ends in."""
    found = {name: name for name in weights if name in held}
    free = [key for key in held if key not in found and not key.isdigit()]  # TorchScript numbers what has no name
    for name, weight in weights.items():
        if name not in found:
            ends = [key for key in free if f".{key}".endswith(f".{name}") or f".{name}".endswith(f".{key}")]
            if len(ends) == 1 and held[ends[0]].numel() == weight.numel():
                found[name] = ends[0]
    return found


class _Index:
    """The tensors of a file, to be found by their bits in any order."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        self.held = held

    @cached_property
    def prints(self) -> dict[tuple[int, ...], list[str]]:
        found: dict[tuple[int, ...], list[str]] = {}
        for name, tensor in self.held.items():
            found.setdefault(_print(tensor), []).append(name)
        return found

    def find(self, weight: Tensor, named: str, exactly: bool) -> str:
        """The name of a tensor with the weight's bits, the one of its name first: `exactly` its name, that one only."""
        if named and any(_same(weight, candidate) for candidate in _arrangements(self.held[named], weight)):
            return named
        if exactly:
            return ""
        for name in self.prints.get(_print(weight), ()):
            if any(_same(weight, candidate) for candidate in _arrangements(self.held[name], weight)):
                return name
        return ""


def _bits(tensor: Tensor) -> Tensor:
    """As integers, so that NaN equals itself and 0.0 is not -0.0."""
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()])


def _print(tensor: Tensor) -> tuple[int, ...]:
    """The same for the same values in any order."""
    bits = _bits(tensor).flatten().to(torch.int64)
    return tensor.numel(), tensor.element_size(), int(bits.sum()), int((bits * bits).sum())


def _arrangements(held: Tensor, weight: Tensor) -> Iterator[Tensor]:
    """`held` in the weight's shape: as it lies, then as each order of the weight's axes would have it."""
    if weight.is_complex() and not held.is_complex():  # ONNX has a last axis for the imaginary part
        if held.is_floating_point() and held.shape == (*weight.shape, 2):
            yield torch.view_as_complex(held.contiguous())
        return
    if held.numel() != weight.numel():
        return
    yield held.reshape(weight.shape)
    axes = [size for size in weight.shape if size != 1]
    shape = [size for size in held.shape if size != 1]
    if 1 < len(axes) <= 5 and sorted(axes) == sorted(shape):
        for order in itertools.islice(itertools.permutations(range(len(axes))), 1, None):
            if [axes[axis] for axis in order] == shape:
                back = [order.index(axis) for axis in range(len(axes))]
                yield held.reshape(shape).permute(back).reshape(weight.shape)


def _same(weight: Tensor, held: Tensor) -> bool:
    return weight.dtype == held.dtype and torch.equal(_bits(weight), _bits(held))


def _is_computed(module: nn.Module, name: str, held: Tensor) -> bool:
    """Whether it is what the module itself computes from this weight before it uses it, as weight norm does: just made,
    a layer's weight is the direction that it was made from, but for rounding."""
    return any(
        torch.allclose(candidate.double(), made.double(), rtol=1e-5, atol=1e-7 * float(made.abs().max()))
        for made in _computed_from(module, name)
        for candidate in _arrangements(held, made)
    )


def _computed_from(module: nn.Module, name: str) -> Iterator[Tensor]:
    path, _, _ = name.rpartition(".")
    outer, parametrized, which = f".{path}".rpartition(".parametrizations.")
    if parametrized:
        yield getattr(module.get_submodule(outer[1:]), which).detach()
    for value in vars(module.get_submodule(path)).values():
        if isinstance(value, Tensor) and value.numel():
            yield value.detach()


def _is_folded(module: nn.Module, name: str, weight: Tensor, held: Tensor) -> bool:
    """Whether it is what an exporter makes of it that folds a batch normalisation into the layer before."""
    if weight.shape != held.shape or weight.dtype != held.dtype:
        return False
    return any(torch.allclose(held.double(), made, rtol=1e-5, atol=1e-7 * size)
               for made, size in _foldings(module, name, weight))  # fmt: skip


def _foldings(module: nn.Module, name: str, weight: Tensor) -> Iterator[tuple[Tensor, float]]:
    """The weight with each batch normalisation of the module folded into it, in float64, and the size of what was added
    up for it: w·s and (b - mean)·s + shift with s = scale / √(variance + eps), for each channel."""
    path, _, which = name.rpartition(".")
    owner = module.get_submodule(path)
    if which not in ("weight", "bias"):
        return
    kind = getattr(owner, "original_name", type(owner).__name__)  # of a script module its author's
    transposed = kind.startswith("ConvTranspose") and which == "weight"
    shape = [1] * weight.dim()
    axis = 1 if transposed and weight.dim() > 1 else 0
    shape[axis] = -1
    for norm in module.modules():
        mean, variance, factor, bias = (
            _tensor(norm, name) for name in ("running_mean", "running_var", "weight", "bias")
        )
        if mean is None or variance is None or mean.numel() != weight.shape[axis]:
            continue
        scale = (variance + getattr(norm, "eps", EPSILON)).rsqrt()
        shift = bias if bias is not None else torch.zeros_like(mean)
        scale = scale * factor if factor is not None else scale
        size = weight.double().abs().reshape(-1).max() * scale.abs().max()
        made = weight.double() * scale.reshape(shape)
        if which == "bias":
            size = torch.maximum(size, (mean * scale).abs().max())
            made = (weight.double() - mean) * scale + shift
        yield made, float(size)


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    found = getattr(module, name, None)
    return found.detach().double() if isinstance(found, Tensor) else None


def check_rounded_weights(module: nn.Module, inspection: Inspection) -> Finding:
    """Whether every parameter and floating-point buffer of `module` is in the file: to the bit, or rounded by no more
    than half a step of its integers, with a batch normalisation folded into it or without."""
    weights = {name: tensor.detach().cpu() for name, tensor in _named(module) if tensor.is_floating_point()}
    index = _Index({name: tensor.detach().cpu() for name, tensor in inspection.constants.items() if tensor.numel()})
    named = _by_name(weights, index.held)
    rounded = list(_rounded(inspection))
    exact = {name for name, weight in weights.items() if index.find(weight, named.get(name, ""), exactly=False)}
    near = {
        name for name, weight in weights.items()
        if name not in exact and any(_is_rounded(module, name, weight, *pair) for pair in rounded)
    }  # fmt: skip
    folded = _folded_away(module) - exact - near
    absent = [name for name in weights if name not in exact | near | folded]
    if absent:
        detail = f"{_listed(absent)} of {len(weights)} weights are neither in the file nor, rounded, within half a step"
        return Finding(CHECK, False, detail)
    detail = f"of {len(weights)} weights {len(exact)} equal to the bit, {len(near)} rounded, within half a step"
    return Finding(CHECK, True, detail + (f", {len(folded)} folded into those" if folded else ""))


def _rounded(inspection: Inspection) -> Iterator[tuple[Tensor, Tensor]]:
    """What each integer constant stands for, and the size of its steps (one for all, or one a channel), in float64."""
    for node in (*inspection.nodes, *inspection.bodies):
        if node.operator == "DequantizeLinear" and all(name in inspection.constants for name in node.inputs[:2]):
            values, step = (inspection.constants[name].double() for name in node.inputs[:2])
            zero = inspection.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
            # The axis of the channels is not known here: each that has their number, of which one is right.
            for axis in [axis for axis, size in enumerate(values.shape) if size == step.numel()] or [0]:
                shape = [1] * values.dim()
                if step.numel() > 1:
                    shape[axis] = -1
                offset = zero.double().reshape(shape) if zero is not None and zero.numel() == step.numel() else 0.0
                steps = step.reshape(shape)
                yield (values - offset) * steps, steps.expand_as(values)


def _is_rounded(module: nn.Module, name: str, weight: Tensor, held: Tensor, step: Tensor) -> bool:
    if held.numel() != weight.numel():
        return False
    wanted = [weight.double(), *(made for made, _ in _foldings(module, name, weight))]
    pairs = zip(_arrangements(held, weight), _arrangements(step, weight), strict=True)
    # A thousandth more: scales are float32.
    return any(
        bool(((candidate - value).abs() <= 0.501 * steps + 1e-12).all())
        for candidate, steps in pairs
        for value in wanted
    )


def _folded_away(module: nn.Module) -> set[str]:
    """Of every batch normalisation, for it may be folded into a weight; what it does is then in that one."""
    return {
        f"{path}.{name}" if path else name
        for path, norm in module.named_modules() if _tensor(norm, "running_var") is not None
        for name, _ in _named(norm)
    }  # fmt: skip


def _similar(weight: Tensor, held: Mapping[str, Tensor]) -> str:
    """The tensor that can only be this weight, changed: at least half of its values are where they were, or all are
    where they were but rounded."""
    if not weight.is_floating_point() or weight.numel() < RECOGNISABLE:
        return ""
    rounded = [weight.to(narrow).to(weight.dtype) for narrow in NARROW]
    for name, tensor in held.items():
        if tensor.dtype != weight.dtype or tensor.numel() != weight.numel():
            continue
        for candidate in _arrangements(tensor, weight):
            kept = _bits(candidate) == _bits(weight)
            if kept.sum() * 2 >= kept.numel() and _distinctive(candidate[kept]):
                return name
            if any(torch.equal(candidate, near) for near in rounded) and _distinctive(candidate):
                return name
    return ""


def _distinctive(values: Tensor) -> bool:
    """Ones and zeros are everywhere."""
    return len(set(values.flatten()[:1000].tolist())) >= RECOGNISABLE // 2


def _difference(name: str, other: str, weight: Tensor, held: Tensor) -> str:
    """One line: what became of the weight, how much of it differs, the worst element and both values."""
    title = repr(name) if name == other else f"{name!r} ({other!r} in the file)"
    candidates = list(_arrangements(held, weight))
    if not candidates:
        return f"{title} is {dtype_name(held.dtype)}{list(held.shape)} in the file, eager {list(weight.shape)}"
    if held.dtype != weight.dtype:
        return f"{title} is {dtype_name(held.dtype)} in the file, eager {dtype_name(weight.dtype)}"
    wide = torch.complex128 if weight.is_complex() else torch.float64

    def distance(candidate: Tensor) -> tuple[int, float]:
        apart = (candidate.to(wide) - weight.to(wide)).abs()
        return int((_bits(candidate) != _bits(weight)).sum()), float(apart.nansum())

    best = candidates[0] if len(candidates) == 1 else min(candidates, key=distance)
    difference = (best.to(wide) - weight.to(wide)).abs().nan_to_num(nan=math.inf)
    wrong = (best != weight) & ~(best.isnan() & weight.isnan())
    if not wrong.any():  # 0.0 and -0.0, or other NaNs
        wrong = (_bits(best) != _bits(weight)).reshape(*weight.shape, -1).any(dim=-1)
    worst = int(torch.where(wrong, difference, -1.0).argmax())
    index = [int(axis) for axis in torch.unravel_index(torch.tensor(worst), weight.shape)]
    return (
        f"{title} {_become(weight, best)}: {int(wrong.sum())} of {weight.numel()} values, worst at {index}: "
        f"file {best.flatten()[worst].item()!r}, eager {weight.flatten()[worst].item()!r}"
    )


def _become(weight: Tensor, held: Tensor) -> str:
    """What one sees in the values of a changed weight."""
    if not held.any():
        return "is all zero in the file"
    if weight.is_floating_point() and not torch.equal(held, weight):
        for narrow in NARROW:
            if torch.equal(held, weight.to(narrow).to(weight.dtype)):
                return f"is rounded to {dtype_name(narrow)} in the file"
    if _print(weight) == _print(held):
        return "has its values in another order in the file"
    return "differs"
