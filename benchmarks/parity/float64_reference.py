"""How far artifacts are from float64, beside eager: where the two constants of its check come from.

    python benchmarks/parity/float64_reference.py [--seeds 5]

Writes every model of the zoo, untrained, in every format, and asks each on its probes. For each format it prints the
largest error of an artifact in eager's errors (where eager makes one worth the name), and in units in the last place of
the output's largest value.
"""

import argparse
import math
import tempfile
from collections import defaultdict
from pathlib import Path

import torch

from deploypipe.capture import capture
from deploypipe.export import plan, write_proven
from deploypipe.formats import FORMATS
from deploypipe.models import MODELS
from deploypipe.parity.probes import image_probes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    factors: dict[str, list[float]] = defaultdict(list)
    floors: dict[str, list[float]] = defaultdict(list)
    for seed in range(parser.parse_args().seeds):
        for name, entry in MODELS.items():
            torch.manual_seed(seed)
            module = entry.build()
            probes = None
            if entry.task == "image-classification":
                probes = image_probes(torch.randint(0, 256, (300, 1, 28, 28), dtype=torch.uint8), seed=seed)
            prepared = plan(capture(module, entry.example(), entry.dynamic, entry.outputs), probes)
            scales = {
                (probe.family, probe.shapes): max((float(o.abs().max()) for o in exact if o.numel()), default=0.0)
                for probe in prepared.gate.probes
                if (exact := prepared.gate.reference.answer(probe).exact)
            }
            for format in FORMATS:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / f"model{FORMATS[format].suffix}"
                    _, report = write_proven(prepared, format, path)
                for outcome in report.outcomes:
                    scale = scales.get((outcome.family, outcome.shapes), 0.0)
                    error, own = outcome.distance.error, outcome.distance.eager_error
                    if math.isnan(error) or not scale:
                        continue
                    ulp = torch.finfo(torch.float32).eps * scale
                    floors[format].append(max(0.0, error - own) / ulp)
                    if own > ulp:
                        factors[format].append(error / own)
                print(f"seed {seed} {name} {format}: {report.verdict}", flush=True)
    for format in FORMATS:
        print(
            f"{format}: at most {max(factors[format], default=math.nan):.2f} times eager's error; "
            f"at most {max(floors[format]):.2f} units in the last place more than eager"
        )


if __name__ == "__main__":
    main()
