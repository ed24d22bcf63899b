"""Probes: the inputs on which an artifact must return what eager returns, by families."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deploypipe.contract.call import Call, CallForm
from deploypipe.contract.signature import Signature, TensorSpec, sizes_of
from deploypipe.contract.sizes import Axis, broken_limits, parse_axis
from deploypipe.eager import check_inputs
from deploypipe.errors import UsageError
from deploypipe.flat_module import as_call, tensors_of_call
from deploypipe.parity.edges import edges_of, equal_sizes, is_large

SIZES = (1, 2, 3, 7, 32, 257)
"""Of a batch, or of any symbolic axis, which has no largest size: the last stands for that. It is no power of two, and
none that an example would have."""
ATTEMPTS = 2000
"""Combinations of sizes that are tried against the limits of an artifact."""
FOUND = "found for a branch"
"""The family of the inputs that were searched for."""
EXTREMES = (1e-4, 1e4)
"""Factors on an example's values. Larger ones overflow float32 in models that square them twice."""
NON_FINITE = {"NaN": math.nan, "infinity": math.inf, "-infinity": -math.inf}
FAR_BELOW = -1e4
"""What masks add to the scores of what does not count: -infinity, the least number of a dtype, or this."""
MOST_NON_FINITE = 4
"""Inputs that are tried so."""


@dataclass(frozen=True, eq=False)
class Probe:
    """One input tuple, and the family it belongs to ("test images", "random pixels", …)."""

    family: str
    inputs: tuple[Tensor, ...]
    magnitude: float = 1.0
    """The absolute tolerance is for values around 1; it is multiplied by this for inputs that are far from it."""
    in_float64: bool = True
    """Whether float64 is asked too. Not for thousands of rows, where it would take most of the time."""
    optional: bool = False
    """Drawn, not given: where eager itself refuses it, it proves nothing and is left out."""
    speculative: bool = False
    """Far from the example: that eager refuses it is not worth a remark."""
    non_finite: bool = False
    """With NaN or an infinity, on which a loop of eager's often has no end: that is found out soon."""

    @property
    def rows(self) -> int:
        return max((len(tensor) for tensor in self.inputs if tensor.dim()), default=1)

    @property
    def values(self) -> int:
        return sum(tensor.numel() for tensor in self.inputs)

    @property
    def shapes(self) -> str:
        return " ".join("x".join(map(str, tensor.shape)) or "scalar" for tensor in self.inputs)


GivenProbe = Probe | Call | tuple[Any, ...] | Mapping[str, Any]
"""Positional arguments are a tuple, keyword arguments a dict, both a `Call`."""


def as_probe(item: GivenProbe, form: CallForm | None = None) -> Probe:
    """UsageError for a call that is not of this form (without one, of tensors alone): what was constant in the captured
    call must be the same."""
    if isinstance(item, Probe):
        return item
    if isinstance(item, Tensor):  # whose rows would be probes, if it was meant to be a list of them
        raise UsageError("a probe must be a tuple of arguments, not a Tensor", "One input x is (x,).")
    call = as_call(item, "a probe")
    if form is None and not call.kwargs:
        return Probe("given", check_inputs(call.args, "a probe"))
    return Probe("given", check_inputs(tensors_of_call(call, form or CallForm(()), "a probe"), "a probe"))


def found_probe(inputs: tuple[Tensor, ...]) -> Probe:
    """Inputs that were searched for, because they take a branch outcome that no other probe takes. The search tries
    extreme inputs, whose rounding errors are as much larger."""
    largest = [tensor.abs().max().item() for tensor in inputs if tensor.is_floating_point() and tensor.numel()]
    return Probe(FOUND, inputs, max([1.0, *(value for value in largest if math.isfinite(value))]))


def image_probes(images: Tensor, sizes: Sequence[int] = SIZES, seed: int = 0) -> list[Probe]:
    """Real test images (`uint8 [n, 1, 28, 28]`) and random pixels, a batch of each size; and what no dataset has:
    black, white, and every single pixel lit alone."""
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(images.shape[1:])
    probes = []
    for size in sizes:
        chosen = torch.randint(len(images), (size,), generator=generator)
        noise = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=generator)
        probes += [Probe("test images", (images[chosen],)), Probe("random pixels", (noise,))]
    pixels = shape[0] * shape[1] * shape[2]
    one_hot = (torch.eye(pixels, dtype=torch.uint8) * 255).reshape(pixels, *shape)
    return [
        *probes,
        Probe("all 0", (torch.zeros(3, *shape, dtype=torch.uint8),)),
        Probe("all 255", (torch.full((3, *shape), 255, dtype=torch.uint8),)),
        Probe("one pixel lit", (one_hot,), in_float64=False),
    ]


def drawn_probes(
    specs: Sequence[TensorSpec], example: Sequence[Tensor], limits: Sequence[str] = (), seed: int = 0
) -> list[Probe]:
    """Probes for a model of which only the inputs and an example are known: the example itself; values of its kind and
    range drawn anew, with every symbolic axis at every size that `limits` allow, at sizes that two of them share, and
    at the edges of `limits`; all zero, all one; floating-point values of both signs, far smaller and larger; and larger
    whole numbers. A mask stays one in all of them."""
    generator = torch.Generator().manual_seed(seed)
    axes = [parse_axis(axis) for spec in specs for axis in spec.shape if isinstance(axis, str)]
    own = sizes_of(specs, example)

    # Of its own, so that the other probes do not depend on how many limits there are.
    beside = torch.Generator().manual_seed(seed + 1)

    def sized(sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        return tensors_of_sizes(specs, example, sizes, beside)

    def draw(turn: int) -> tuple[Tensor, ...]:
        return tensors_of_sizes(specs, example, _drawn_sizes(axes, turn, own, limits), generator)

    masks = masks_of(specs, example)

    def made(family: str, change: Callable[[Tensor], Tensor], turn: int, magnitude: float = 1.0) -> Probe:
        drawn = zip(draw(turn), masks, strict=True)
        inputs = tuple(tensor if is_mask else change(tensor) for tensor, is_mask in drawn)
        return Probe(family, inputs, magnitude, optional=True, speculative=True)

    probes = [Probe("example", tuple(example))]
    probes += [Probe("drawn", draw(turn), optional=True) for turn in range(len(SIZES))]
    probes += [Probe("equal sizes", sized(sizes), optional=True) for sizes in equal_sizes(axes, own, limits)]
    edges = [sizes for edge in edges_of(limits, own) for sizes in (edge.on, edge.inside) if sizes]
    distinct = {tuple(sorted(sizes.items())): sizes for sizes in edges if not is_large(sizes)}
    probes += [Probe("edge of a limit", sized(sizes), optional=True) for sizes in distinct.values()]
    probes += [made("all zero", torch.zeros_like, 1), made("all one", torch.ones_like, 2)]
    if any(tensor.is_floating_point() for tensor in example):
        probes += [made("both signs", _centred, turn) for turn in (2, 4)]
        for factor in EXTREMES:
            probes.append(made(f"drawn x {factor:g}", partial(_scaled, factor), 1, max(1.0, factor)))
    if any(_is_count(tensor) for tensor in example):
        probes += [made("larger counts", partial(_enlarged, factor), 2) for factor in (2, 4)]
    return probes


def non_finite_probes(
    specs: Sequence[TensorSpec], example: Sequence[Tensor], limits: Sequence[str] = (), seed: int = 0
) -> list[Probe]:
    """For each of the first floating-point inputs, NaN and either infinity in single places of it: one in each row but
    the last, so that what is mixed between rows is seen, or one where no symbol leads."""
    generator = torch.Generator().manual_seed(seed)
    axes = [parse_axis(axis) for spec in specs for axis in spec.shape if isinstance(axis, str)]
    sizes = _drawn_sizes(axes, SIZES.index(3), sizes_of(specs, example), limits)
    places = [place for place, tensor in enumerate(example) if tensor.is_floating_point()][:MOST_NON_FINITE]
    probes = []
    for place, (family, value) in itertools.product(places, NON_FINITE.items()):
        inputs = list(tensors_of_sizes(specs, example, sizes, generator))
        leads = bool(specs[place].shape) and isinstance(specs[place].shape[0], str)
        rows = list(inputs[place])[:-1] if leads and len(inputs[place]) > 1 else [inputs[place]]
        for parity, row in enumerate(rows):
            if row.numel():
                row.view(-1)[_place(row.numel(), 1 - parity % 2, generator)] = value
        probes.append(Probe(family, tuple(inputs), optional=True, speculative=True, non_finite=True))
    return probes


def _place(count: int, parity: int, generator: torch.Generator) -> int:
    """An odd or an even one of `count` places: runtimes lose NaN in a maximum that does not begin, or end, with it."""
    return min(count - 1, 2 * int(torch.randint((count + 1) // 2, (), generator=generator)) + parity)


def tensors_of_sizes(
    specs: Sequence[TensorSpec], example: Sequence[Tensor], sizes: Mapping[str, int], generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Values like the example's, with every symbolic axis at its symbol's value in `sizes`."""

    def shape(spec: TensorSpec) -> list[int]:
        axes = [parse_axis(axis) if isinstance(axis, str) else axis for axis in spec.shape]
        return [sizes[axis.symbol] * axis.multiple if isinstance(axis, Axis) else axis for axis in axes]

    return tuple(
        (_mask_like if is_mask else _like)(tensor, shape(spec), generator)
        for spec, tensor, is_mask in zip(specs, example, masks_of(specs, example), strict=True)
    )


def _drawn_sizes(axes: Sequence[Axis], turn: int, own: Mapping[str, int], limits: Sequence[str]) -> dict[str, int]:
    """A value for each symbol. Each goes through all sizes, and no two have the same one at a time, unless the limits
    forbid: then the first values that keep them, and in the end the example's own."""
    multiples = {axis.symbol: max(other.multiple for other in axes if other.symbol == axis.symbol) for axis in axes}
    symbols = sorted(multiples)
    choices = []
    for offset, symbol in enumerate(symbols):
        sizes = [max(1, SIZES[(turn + offset + step) % len(SIZES)] // multiples[symbol]) for step in range(len(SIZES))]
        bounds = [int(number) for limit in limits for number in re.findall(rf"\b{symbol} [<>]= (\d+)", limit)]
        first, *others = [size for size in sizes if not broken_limits(limits, {symbol: size})] or [own[symbol]]
        choices.append(list(dict.fromkeys([first, *bounds, *others, own[symbol]])))
    for values in itertools.islice(itertools.product(*choices), ATTEMPTS):
        chosen = dict(zip(symbols, values, strict=True))
        if not broken_limits(limits, chosen):
            return chosen
    return dict(own)


def _centred(tensor: Tensor) -> Tensor:
    """Around 0 and twice as wide, so that the rows of a batch take different outcomes of a decision by sign. Their mean
    is a quarter of their spread and not 0, for there rounding would decide by itself."""
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor
    spread = (tensor - tensor.mean()).abs().mean()
    return (tensor - tensor.mean() + spread / 4) * 2


def _scaled(factor: float, tensor: Tensor) -> Tensor:
    return tensor * factor if tensor.is_floating_point() else tensor


def _is_count(tensor: Tensor) -> bool:
    """Whole numbers that count or name something; larger ones may make tensors that no memory holds."""
    wide = tensor.dtype in (torch.int16, torch.int32, torch.int64)  # pixels are no counts
    return wide and tensor.numel() > 0 and int(tensor.abs().max()) < 10_000


def _enlarged(factor: int, tensor: Tensor) -> Tensor:
    """Past the example's largest: more turns of a loop, rows of a table that no example names."""
    return tensor * factor + factor + 1 if _is_count(tensor) else tensor


def _like(tensor: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Values of the example's dtype and range; of a constant example, a range around it."""
    size = list(shape)
    if tensor.dtype == torch.bool:
        return torch.rand(size, generator=generator) < 0.5
    if tensor.is_floating_point() or tensor.is_complex():
        real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        finite = real[real.isfinite()].double()
        middle = finite.mean().item() if finite.numel() else 0.0
        spread = (finite.std().item() if finite.numel() > 1 else 0.0) or 1.0
        kind = torch.complex128 if tensor.is_complex() else torch.float64
        return (torch.randn(size, generator=generator, dtype=kind) * spread + middle).to(tensor.dtype)
    low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 1)
    low, high = max(low, -(2**31)), min(high, 2**31 - 2)
    if low == high:
        low, high = min(low, 0), max(high, 1)
    return torch.randint(low, high + 1, size, generator=generator).to(tensor.dtype)


def masks_of(specs: Sequence[TensorSpec], example: Sequence[Tensor]) -> list[bool]:
    """Which inputs say what of the others counts, by their names and values: 0 and 1, or what is added to scores, 0 and
    a number that is as good as -infinity. An input alone is data."""
    masks = ["mask" in spec.name.lower() and _like_a_mask(tensor) for spec, tensor in zip(specs, example, strict=True)]
    return masks if not all(masks) else [False] * len(masks)


def _like_a_mask(tensor: Tensor) -> bool:
    values = [] if tensor.is_complex() else torch.unique(tensor).tolist()
    added = len(values) == 2 and values[0] <= FAR_BELOW and values[1] == 0
    return tensor.dim() > 0 and bool(values) and (set(values) <= {0, 1} or added)


def _mask_like(tensor: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """As masks of sequences are: along the last axis at least one value that the example has most often (a token that
    counts), then the other one to the end. In a row where nothing counts, runtimes rightly differ."""
    values, times = torch.unique(tensor, return_counts=True)
    most = values[times.argmax()]
    other = next((value for value in values if value != most), (most == 0).to(tensor.dtype))
    *rows, length = shape
    kept = torch.randint(1, max(length, 1) + 1, (*rows, 1), generator=generator)
    return torch.where(torch.arange(length) < kept, most, other)


def row_probes(probes: Sequence[Probe], signature: Signature) -> list[Probe]:
    """The rows of a small batch, each alone, where one symbol leads every input and output: eager's answers to these
    and to the batch are one table, so an artifact that mixes rows differs on one of them."""
    leading = {spec.shape[0] if spec.shape else None for spec in (*signature.inputs, *signature.outputs)}
    if len(leading) != 1 or not isinstance(leading.pop(), str):
        return []
    small = [probe for probe in probes if 1 < probe.rows <= 7 and probe.magnitude == 1]
    if not small:
        return []
    batch = max(small, key=lambda probe: probe.rows)
    rows = zip(*(torch.split(tensor, 1) for tensor in batch.inputs), strict=True)
    return [Probe("rows alone", tuple(row), optional=batch.optional) for row in rows]
