"""How far an artifact may be from eager: by dtype and runtime, as overridden by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from deploypipe.errors import UsageError


@dataclass(frozen=True)
class Tolerance:
    """|artifact - eager| <= atol + rtol * |eager|."""

    atol: float
    rtol: float


TOLERANCES: dict[tuple[str, str], Tolerance] = {
    # The same kernels: the defaults of torch.testing.assert_close.
    ("torch", "float64"): Tolerance(1e-7, 1e-7),
    ("torch", "float32"): Tolerance(1e-5, 1.3e-6),
    ("torch", "float16"): Tolerance(1e-5, 1e-3),
    ("torch", "bfloat16"): Tolerance(1e-5, 1.6e-2),
    # Other kernels, which sum in another order.
    ("onnxruntime", "float64"): Tolerance(1e-7, 1e-7),
    ("onnxruntime", "float32"): Tolerance(1e-4, 1e-4),
    ("onnxruntime", "float16"): Tolerance(1e-2, 1e-2),
    ("onnxruntime", "bfloat16"): Tolerance(5e-2, 2e-2),
}
EXACT = Tolerance(0.0, 0.0)
"""For integers and booleans."""
OTHER_KERNELS = "onnxruntime"
"""The rows of the table for kernels that sum in another order than eager's."""


@dataclass(frozen=True)
class Overrides:
    """What the user asked for instead of the table: output's name → value; "" stands for every output."""

    atol: Mapping[str, float] = field(default_factory=dict)
    rtol: Mapping[str, float] = field(default_factory=dict)

    def names(self) -> set[str]:
        return {*self.atol, *self.rtol} - {""}

    def concern(self, output: str) -> bool:
        return any(name in given for given in (self.atol, self.rtol) for name in ("", output))


NO_OVERRIDES = Overrides()
ANY_VALUE = Overrides(atol={"": math.inf})
"""Values are not compared; shapes, dtypes, NaN and infinities are."""


def tolerance_of(dtype: torch.dtype, runtime: str, output: str, overrides: Overrides) -> Tolerance:
    """The row of the table for a floating-point or complex output, with what the user overrides of it."""
    kind = {torch.complex64: "float32", torch.complex128: "float64"}.get(dtype, str(dtype).removeprefix("torch."))
    row = TOLERANCES.get((runtime, kind), TOLERANCES["torch", "float32"])
    return Tolerance(
        overrides.atol.get(output, overrides.atol.get("", row.atol)),
        overrides.rtol.get(output, overrides.rtol.get("", row.rtol)),
    )


def parse_overrides(atol: Sequence[str], rtol: Sequence[str]) -> Overrides:
    """`1e-5` for every output, `logits:1e-5` for one. UsageError for what is no tolerance."""

    def parse(option: str, texts: Sequence[str]) -> dict[str, float]:
        found = {}
        for text in texts:
            name, _, number = text.rpartition(":")
            try:
                value = float(number)
            except ValueError:
                value = -1.0
            if not 0 <= value < float("inf"):
                raise UsageError(
                    f"{option} {text!r} is no tolerance", f"Examples: {option} 1e-5, {option} logits:1e-5."
                )
            found[name] = value
        return found

    return Overrides(parse("--atol", atol), parse("--rtol", rtol))
