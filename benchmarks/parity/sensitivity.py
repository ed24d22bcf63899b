"""How small a change of one weight the comparisons still find, and what the allowance for rounding costs of that.

    python benchmarks/parity/sensitivity.py                  # 60 random networks, 3 weights of each
    python benchmarks/parity/sensitivity.py --networks 5

Of each random network (`random_networks.py`) weights are drawn at random; one of them is multiplied by 1 + 2^-k, and
the changed module stands for the artifact, so that there is no rounding between both. Found by halving is the largest k
that the comparisons on the gate's own probes reject: by the tolerances of the table and the float64 reference alone
("before"), and with what rounding of inputs and weights explains allowed as well ("after"). That the gate also compares
the weights in the file to the bit is left out here.
"""

import argparse
import copy
import statistics
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
# The function that stands for an artifact belongs to the tests.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "parity")]

import random_networks  # noqa: E402
from fake_artifact import Fake  # noqa: E402

from deploypipe.parity import comparison  # noqa: E402
from deploypipe.parity.eager_signature import input_specs  # noqa: E402
from deploypipe.parity.gate import Gate  # noqa: E402
from deploypipe.verify import gate_for  # noqa: E402

LARGEST, SMALLEST = 1, 23
"""Exponents: half of the weight, and the last place of a float32."""
RULES = {"before": 0.0, "after": comparison.CONDITION_FACTOR}


def changed(module: nn.Module, name: str, place: int, exponent: int) -> nn.Module:
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.get_parameter(name).view(-1)[place] *= 1 + 2.0**-exponent
    return other


def smallest_found(gate: Gate, module: nn.Module, name: str, place: int) -> int | None:
    """The exponent of the smallest change that is found; None where half of the weight is not."""

    def found(exponent: int) -> bool:
        artifact = Fake(changed(module, name, place, exponent), runtime="onnxruntime")
        with torch.no_grad():
            return not gate.examine_runner(artifact, "artifact").passed

    if not found(LARGEST):
        return None
    known, beyond = LARGEST, SMALLEST + 1
    while beyond - known > 1:
        middle = (known + beyond) // 2
        known, beyond = (middle, beyond) if found(middle) else (known, middle)
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--weights", type=int, default=3, help="of each network")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[dict[str, int | None]] = []
    for number in range(options.networks):
        drawn = random_networks.network(number)
        module = drawn.module.requires_grad_(False)
        gate = gate_for(module, drawn.inputs, input_specs(module, drawn.inputs, drawn.dynamic))
        names = [name for name, weight in module.named_parameters() if weight.numel()]
        generator = torch.Generator().manual_seed(number)
        for _ in range(options.weights):
            name = names[int(torch.randint(len(names), (), generator=generator))]
            place = int(torch.randint(module.get_parameter(name).numel(), (), generator=generator))
            row = {}
            for rule, factor in RULES.items():
                comparison.CONDITION_FACTOR = factor
                row[rule] = smallest_found(gate, module, name, place)
            rows.append(row)
            print(f"{drawn.name} · {name}[{place}]: {row}", file=sys.stderr, flush=True)
    print(f"torch {torch.__version__}, {len(rows)} weights of {options.networks} random networks.\n")
    print("| | median | a tenth needs more than | not found at all |\n| --- | --- | --- | --- |")
    for rule in RULES:
        exponents = sorted(row[rule] for row in rows if row[rule] is not None)
        tenth = exponents[len(exponents) // 10]
        print(f"| {rule} | {2.0**-statistics.median(exponents):.1e} | {2.0**-tenth:.1e} | "
              f"{len(rows) - len(exponents)} |")  # fmt: skip
    both = [(row["before"], row["after"]) for row in rows if row["before"] is not None]
    print(f"\nThe allowance changes {sum(a != b for a, b in both)} of {len(both)}.")


if __name__ == "__main__":
    main()
