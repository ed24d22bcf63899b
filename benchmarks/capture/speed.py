"""What the capture costs, against the same model written by hand with `torch.cond` and `torch.while_loop`.

    python benchmarks/capture/speed.py [--json FILE]

Two ratios a form, deploypipe over hand-written: the time to capture (`capture` against `torch.export.export`) and the
time that one call of the artifact takes, as `pt2` and in ONNX Runtime. Both sides alternate in one run on one thread,
and the medians are compared, so that what the machine does meanwhile falls on both. The goal is at most 5 for the
capture, and at most 1.10 for the run.
"""

import argparse
import inspect
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops import while_loop as untyped_while_loop

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "capture")]

from carrying import exported_onnx, onnx_model, onnx_runner  # noqa: E402
from comparing import difference  # noqa: E402
from corpus import CASES  # noqa: E402
from corpus._case import ints, rand  # noqa: E402

Runner = Callable[..., Any]
while_loop: Callable[..., Any] = untyped_while_loop

# -- the same four models, written by hand


class HandBranch(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x + 1, (x,))


class HandWhile(nn.Module):
    def forward(self, x: Tensor) -> Any:
        (x,) = while_loop(lambda x: x.norm() > 1, lambda x: (x * 0.5,), (x,))
        return x


class HandDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 10)

    def forward(self, x: Tensor, depth: Tensor) -> Any:
        def body(i: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, torch.relu(self.layer(x))

        start = torch.zeros((), dtype=torch.int64)
        _, x = while_loop(lambda i, _: i < depth, body, (start, x))
        return x


class HandRecurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.cell = nn.GRUCell(8, 8)

    def forward(self, tokens: Tensor) -> Any:
        length = tokens.shape[1]

        def body(t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            step = torch.index_select(tokens, 1, t.reshape(1)).squeeze(1)
            return t + 1, self.cell(self.embed(step), state)

        start = torch.zeros((), dtype=torch.int64)
        _, state = while_loop(lambda t, _: t < length, body, (start, torch.zeros(tokens.shape[0], 8)))
        return state


@dataclass(frozen=True)
class Pair:
    """A case of the corpus by name, the same by hand, and an input that keeps the artifact busy for a while."""

    case: str
    by_hand: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]


PAIRS = (
    Pair("branch_on_sum", HandBranch, (rand(64, 4),)),
    Pair("while_below_norm", HandWhile, (rand(64, 4) * 2**40,)),
    Pair("tensor_depth", HandDepth, (rand(64, 10), torch.tensor(50))),
    Pair("recurrent_cell", HandRecurrent, (ints(50, 8, 64),)),
)


# -- measuring


@dataclass(frozen=True)
class Comparison:
    """Medians in seconds, of both sides."""

    form: str
    what: str
    deploypipe: float
    by_hand: float

    @property
    def ratio(self) -> float:
        return self.deploypipe / self.by_hand


def alternate(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, calls: int = 1) -> tuple[float, float]:
    """The median time of one call of each, taking turns; the first round is not counted, for what it warms up."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        # The order swaps on each turn, so that neither side always runs after the other.
        for side in (0, 1) if turn % 2 else (1, 0):
            run = (ours, theirs)[side]
            started = time.perf_counter()
            for _ in range(calls):
                run()
            if turn:
                times[side].append((time.perf_counter() - started) / calls)
    return statistics.median(times[0]), statistics.median(times[1])


def measure(pair: Pair, captures: int, runs: int) -> list[Comparison]:
    from deploypipe.staging.trace import trace

    case = CASES[pair.case]
    module, hand = case.reference(), pair.by_hand().eval()
    hand.load_state_dict(module.state_dict())
    names = inspect.signature(hand.forward).parameters
    axes = [case.dynamic.get(name, {}) for name in names]
    shapes = tuple(dict.fromkeys(a, torch.export.Dim.DYNAMIC) or None for a in axes)

    def ours() -> Any:
        return trace(module, case.example, case.dynamic)

    def theirs() -> torch.export.ExportedProgram:
        return torch.export.export(hand, case.example, dynamic_shapes=shapes)

    results = [Comparison(case.form, "capture", *alternate(ours, theirs, captures))]
    captured, program = ours(), theirs()
    artifacts: dict[str, tuple[Runner, Runner]] = {
        "run pt2": (captured.program.module(), program.module()),
        "run onnx": (onnx_runner(onnx_model(captured), first), onnx_runner(exported_onnx(program), first)),
    }
    for what, (left, right) in artifacts.items():
        with torch.no_grad():
            expected = module(*pair.inputs)
            for runner in (left, right):
                problem = difference(expected, runner(*pair.inputs))
                assert problem is None, f"{pair.case}, {what}: {problem}"
            timed = alternate(partial(left, *pair.inputs), partial(right, *pair.inputs), runs, calls=20)
        results.append(Comparison(case.form, what, *timed))
    return results


def first(values: list[Tensor]) -> Tensor:
    """All four models return one tensor."""
    return values[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", type=int, default=7, help="how often each side captures")
    parser.add_argument("--runs", type=int, default=31, help="how many rounds of 20 calls each side runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    results = []
    for pair in PAIRS:
        results += measure(pair, options.captures, options.runs)

    print(f"torch {torch.__version__}, one thread, medians; ratios are deploypipe over hand-written.\n")
    print("| form | what | deploypipe | by hand | ratio |\n| --- | --- | --- | --- | --- |")
    for r in results:
        print(f"| {r.form} | {r.what} | {r.deploypipe * 1e3:.3g} ms | {r.by_hand * 1e3:.3g} ms | {r.ratio:.2f} |")
    if options.json:
        rows = [{**asdict(r), "ratio": r.ratio} for r in results]
        payload = {"schema": "deploypipe.capture-speed/1", "torch": torch.__version__, "results": rows}
        options.json.write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
