"""The gate for tests of one's own: `assert_same` holds a file, whoever wrote it, to the eager module."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from deploypipe.contract.call import Call
from deploypipe.contract.signature import Axes
from deploypipe.parity.budget import BY_MODEL, Budget
from deploypipe.parity.probes import GivenProbe
from deploypipe.parity.tolerances import Overrides
from deploypipe.parity.verdict import Report
from deploypipe.verify import verify


def assert_same(
    module: nn.Module,
    path: str | Path,
    args: Tensor | Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    probes: Iterable[GivenProbe] | None = None,
    dynamic: Axes | None = None,
    device: str = "cpu",
    atol: float | None = None,
    rtol: float | None = None,
    seed: int = 0,
    budget: Budget = BY_MODEL,
) -> Report:
    """Hold the ONNX, TorchScript or pt2 file at `path` to the eager `module`, and return the report.

    `args` and `kwargs` are an example of the module's call: it is compared on that, on values like it at other sizes,
    and under other settings, as `deploypipe verify` does. With `probes` it is compared on those calls alone. `dynamic`
    says which axes must be free, by input and axis; without it they are those that the file declares. `atol` and
    `rtol` replace the tolerances of every output. `seed`: of the values that are drawn. `budget`: what may be spent.

    AssertionError with the report's reason where they differ; ParityError for a file that cannot be loaded; UsageError
    for a call that the eager module itself does not take.
    """
    __tracebackhide__ = True
    given = (args,) if isinstance(args, Tensor) else tuple(args)
    example = Call(*given, **(kwargs or {})) if given or kwargs else None
    overrides = Overrides({} if atol is None else {"": atol}, {} if rtol is None else {"": rtol})
    report = verify(
        module, path, probes, example=example, dynamic=dynamic, device=device, overrides=overrides, seed=seed,
        budget=budget,
    )  # fmt: skip
    if not report.passed:
        raise AssertionError(report.reason)
    return report
