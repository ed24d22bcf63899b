"""`deploypipe serve` against other ways to serve the same model: requests a second, latencies, images a second.

    python benchmarks/serving/compare.py --data-dir DIR
    python benchmarks/serving/compare.py --model cnn --rounds 5 --out runs/serving-comparison-cnn.json
    python benchmarks/serving/compare.py --settings all --rounds 1 --out runs/serving-settings.json

Every server gets the same exported weights, the same images (28x28 PNG files, decoded by Pillow) and the same load, and
answers with class, probability and probabilities; a wrong class is an error. Those called int8 serve what `deploypipe
quantize` made of these weights; the others float32. Each round starts each of them once, one after the other, and puts
three loads on it: 1 connection and 64 connections with one image a request, and 8 connections with 64 images a request
(a `.npy` array). The load generator shares the cores with the server. Medians are over rounds.
Requests per CPU second of the server tell more than requests per second where other programs take a share of the cores.
With `--settings all` every setting of every peer is measured, and the ratios are to its best in each figure; else the
first in `peers.py`.

The peers live in environments of their own, made from the `.txt` files beside this file. Results are in --out after
each server; the same command goes on from there. Run it on a machine that does nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE.parent)]

from comparison import Row, begun, cells, machine, spread  # noqa: E402
from peers import (  # noqa: E402
    ALONE,
    ALONE_SETTINGS,
    FASTAPI_ROUNDED,
    FLOAT,
    OURS,
    OURS_ROUNDED,
    PEERS,
    ROUNDED,
    STOCK,
    Sample,
    Served,
    serving,
)  # fmt: skip

from deploypipe.bench import Load, measure  # noqa: E402
from deploypipe.bench.payloads import requests_for  # noqa: E402
from deploypipe.contract.run import Run, open_run  # noqa: E402
from deploypipe.data import dataset_of  # noqa: E402
from deploypipe.errors import ServingError  # noqa: E402
from deploypipe.files import sha256_file, write_json  # noqa: E402
from deploypipe.models.trained import load_trained  # noqa: E402
from deploypipe.png import png  # noqa: E402

SCHEMA = "deploypipe.benchmark.serving/1"
IMAGES = 256
MANY, ONE, ARRAYS = "64 connections", "1 connection", "64 images a request"
LOADS = {
    # name: load, images a request; the light one first: BentoML keeps waiting as long as under load
    ONE: (Load(connections=1), 1),
    MANY: (Load(connections=64), 1),
    ARRAYS: (Load(connections=8), 64),
}
PATIENCE = 60.0
"""Seconds until a request counts as not answered: who is slow is measured as slow."""
GOALS = {
    # of whom: how many times their throughput at 64 connections
    "fastapi": 3.0,
    "litserve": 3.0,
    "bentoml": 5.0,
    STOCK: 8.0,
}
LATENCY_GOAL = 1.5
"""Of FastAPI's median at 1 connection, at most."""
ARRAYS_GOAL = 0.8
"""Of what onnxruntime alone does, at least."""
Job = tuple[str, str, int]
"""A server, its setting, a round."""


def main() -> None:
    asked = _arguments()
    run = _run(asked)
    images, labels = _images(run, asked.data_dir)
    settings = _settings(run, asked)
    document = begun(asked.out, SCHEMA, settings)
    wanted = _jobs(asked)
    done = {_job(row) for row in document["results"]}
    for number, job in enumerate(wanted, start=1):
        if job in done:
            continue
        row = _measure(job, run, images, labels, asked)
        document["results"].append(row)
        write_json(asked.out, document)
        print(f"{number}/{len(wanted)}  {row['server']} ({row['setting']}): {_said(row)}", file=sys.stderr)
    rows = [row for row in document["results"] if _job(row) in set(wanted)]
    document["summary"] = [
        _summary([row for row in rows if (row["server"], row["setting"]) == pair])
        for pair in dict.fromkeys((server, setting) for server, setting, _ in wanted)
    ]
    document["goals"] = _goals(document["summary"])
    write_json(asked.out, document)
    print("\n".join(_report(document)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="with exports of ONNX and TorchScript (default: one is trained)")
    parser.add_argument("--model", default="lean-cnn", help="to train without --run (default: lean-cnn)")
    parser.add_argument("--data", default="auto", help="to train it with")
    parser.add_argument("--data-dir", type=Path, help="default: where deploypipe looks")
    parser.add_argument("--servers", nargs="*", choices=[*PEERS, ALONE], default=[*PEERS, ALONE])
    parser.add_argument("--settings", choices=["best", "all"], default="best", help="of the peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each load, after --warmup (default: 5)")
    parser.add_argument("--warmup", type=float, default=2, help="seconds (default: 2)")
    parser.add_argument("--environments", type=Path, default=Path("runs/serving-environments"))
    parser.add_argument("--out", type=Path, default=Path("runs/serving-comparison.json"))
    return parser.parse_args()


def _run(asked: argparse.Namespace) -> Run:
    """The run that is served, with what the servers need of it."""
    folder = (asked.run or Path("runs") / f"serving-{asked.model}").absolute()  # the servers run elsewhere
    where = ["--data-dir", asked.data_dir] if asked.data_dir else []
    if not (folder / "run.json").is_file():
        if asked.run:
            sys.exit(f"error: {folder} is no run")
        _deploypipe("train", "--model", asked.model, "--data", asked.data, *where, "--epochs", "1", "--out", folder)
    if not all((folder / "exports" / name).is_file() for name in (FLOAT, "model.pt")):
        for format in ("onnx", "torchscript"):
            _deploypipe("export", "--run", folder, "--format", format, *where)
    rounded = any(name in PEERS and PEERS[name].artifact == ROUNDED for name in asked.servers)
    if rounded and not (folder / "exports" / ROUNDED).is_file():
        _deploypipe("quantize", "--run", folder, *where)
    return open_run(folder)


def _deploypipe(*argv: str | Path) -> None:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, "-m", "deploypipe", *argv], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: deploypipe {argv[0]} ended with {done.returncode}:\n{done.stderr}")


def _images(run: Run, data_dir: Path | None) -> tuple[torch.Tensor, list[int]]:
    """Test images, `uint8 [n, 28, 28]`, and eager's classes: of those it is sure of, so that no rounding matters."""
    dataset = dataset_of(run, data_dir)
    if dataset is None:
        sys.exit(f"error: {run.model} is not trained on images")
    inputs = dataset.test.inputs[: 4 * IMAGES]
    with torch.no_grad():
        odds = load_trained(run)(inputs).softmax(1)
    best, classes = odds.max(1)
    sure = (best - odds.topk(2).values[:, 1] > 0.01).nonzero()[:IMAGES, 0]
    return inputs[sure, 0], classes[sure].tolist()


def _settings(run: Run, asked: argparse.Namespace) -> Row:
    import onnxruntime

    return machine() | {
        "model": run.model,
        "weights_sha256": run.document["weights_sha256"],
        "artifact_sha256": sha256_file(run.exports / FLOAT),
        "seconds": asked.seconds,
        "warmup": asked.warmup,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "torchserve": version("torchserve"),
    }


def _jobs(asked: argparse.Namespace) -> list[Job]:
    """Round by round, so that what the machine does meanwhile falls on all."""
    found = []
    for name in asked.servers:
        settings = list(ALONE_SETTINGS if name == ALONE else PEERS[name].settings)
        found += [(name, setting) for setting in (settings if asked.settings == "all" else settings[:1])]
    return [(*pair, number) for number in range(asked.rounds) for pair in found]


def _job(row: Row) -> Job:
    return row["server"], row["setting"], row["round"]


# -- one server


def _measure(job: Job, run: Run, images: torch.Tensor, labels: list[int], asked: argparse.Namespace) -> Row:
    name, setting, number = job
    row = {"server": name, "setting": setting, "round": number, "machine_load": os.getloadavg()[0]}
    if name == ALONE:
        return row | {"loads": {ARRAYS: _alone(setting, run, asked)}}
    sample = Sample(png(images[0]), labels[0])
    with serving(name, setting, run, asked.environments, sample) as served:
        loads = {
            load: _put(load, name, served, images, labels, asked)
            for load in LOADS
            if PEERS[name].arrays or load != ARRAYS
        }
    return row | {"loads": loads}


def _put(
    load: str, name: str, served: Served, images: torch.Tensor, labels: list[int], asked: argparse.Namespace
) -> Row:
    amount, together = LOADS[load]
    requests = requests_for(served.url, images, labels, together, wrap=PEERS[name].wrap)
    times = {"seconds": asked.seconds, "warmup": asked.warmup, "timeout": PATIENCE}
    try:
        return measure(served.url, requests, amount, **times, pid=served.process.pid).to_json()
    except ServingError as error:
        sys.exit(f"error: {name}, {load}: {error}")


def _alone(setting: str, run: Run, asked: argparse.Namespace) -> Row:
    program = [sys.executable, HERE / "onnxruntime_alone.py"]
    options = ["--model", run.exports / "model.onnx", "--seconds", str(asked.seconds), *ALONE_SETTINGS[setting]]
    done = subprocess.run([*program, *options], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: onnxruntime_alone.py ended with {done.returncode}:\n{done.stderr}")
    found: Row = json.loads(done.stdout)
    return found


def _said(row: Row) -> str:
    many = row["loads"].get(MANY)
    if many is None:
        return f"{row['loads'][ARRAYS]['images_per_second']:,.0f} images/s"
    return f"{many['requests_per_second']:,.0f} requests/s"


# -- all of them


def _summary(rows: Sequence[Row]) -> Row:
    """Medians, smallest and largest over the rounds of one server with one setting."""

    def over(load: str, *path: str) -> Row | None:
        values = []
        for row in rows:
            value = row["loads"].get(load)
            for key in path:
                value = value and value.get(key)
            if value is not None:
                values.append(value)
        return spread(values)

    errors: dict[str, int] = {}
    for row in rows:
        for measured in row["loads"].values():
            for kind, count in measured.get("errors", {}).items():
                errors[kind] = errors.get(kind, 0) + count
    return {
        "server": rows[0]["server"],
        "setting": rows[0]["setting"],
        "rounds": len(rows),
        "requests_per_second": over(MANY, "requests_per_second"),
        "p50_ms": over(MANY, "latency", "p50"),
        "p99_ms": over(MANY, "latency", "p99"),
        "alone_p50_ms": over(ONE, "latency", "p50"),
        "images_per_second": over(ARRAYS, "images_per_second"),
        "server_cores": over(MANY, "server", "cores"),
        "requests_per_cpu_second": spread(
            [
                row["loads"][MANY]["requests_per_second"] / row["loads"][MANY]["server"]["cores"]
                for row in rows
                if MANY in row["loads"] and row["loads"][MANY]["server"]["cores"]
            ]
        ),
        "generator_cores": over(MANY, "generator_cores"),
        "memory": over(MANY, "server", "memory"),
        "errors": errors,
    }


def _goals(summary: Sequence[Row]) -> list[Row]:
    """Ours against each of the others, where both were measured: the ratio of medians, and the goal. Of a server that
    was measured with several settings, in each figure the best."""

    def best(server: str, field: str, pick: Callable[[list[float]], float]) -> float | None:
        found = [row[field]["median"] for row in summary if row["server"] == server and row[field]]
        return pick(found) if found else None

    def ratio(ours: str, of: str, field: str, pick: Callable[[list[float]], float] = max) -> float | None:
        mine, theirs = best(ours, field, pick), best(of, field, pick)
        return mine / theirs if mine and theirs else None

    wanted = []
    for ours, peers in ((OURS, GOALS), (OURS_ROUNDED, {**GOALS, FASTAPI_ROUNDED: GOALS["fastapi"]})):
        for name, goal in peers.items():
            found = ratio(ours, name, "requests_per_second")
            wanted.append((f"{ours}: requests/s at {MANY}, of {name}'s", found, goal, True))
        found = ratio(ours, "fastapi", "alone_p50_ms", min)
        wanted.append((f"{ours}: median latency at {ONE}, of fastapi's", found, LATENCY_GOAL, False))
        found = ratio(ours, ALONE, "images_per_second")
        wanted.append((f"{ours}: images/s with {ARRAYS}, of {ALONE}", found, ARRAYS_GOAL, True))
    return [
        {"what": what, "ratio": found, "goal": goal, "met": found >= goal if at_least else found <= goal}
        for what, found, goal, at_least in wanted
        if found is not None
    ]


def _report(document: Row) -> Iterator[str]:
    settings = document["settings"]
    loads = [row["machine_load"] for row in document["results"]]
    busy = f"{min(loads):.1f} to {max(loads):.1f}"
    yield (f"{settings['model']} on {settings['cores']} cores of {settings['cpu']}, which server and generator share; "
           f"Python {settings['python']}, torch {settings['torch']}, onnxruntime {settings['onnxruntime']}; "
           f"{settings['seconds']:g} s a load; load average before a server: {busy}")  # fmt: skip
    yield ""
    yield ("| server | setting | rounds | requests/s at 64 connections: median (min to max) | p50, ms | p99, ms "
           "| 1 connection: p50, ms | images/s, 64 a request | server's cores "
           "| requests per CPU second | memory, MB | errors |")  # fmt: skip
    yield cells(["---"] * 12)
    for found in document["summary"]:
        name = found["server"]
        memory = found["memory"]
        yield cells([
            ALONE if name == ALONE else PEERS[name].title,
            found["setting"],
            found["rounds"],
            _spread(found["requests_per_second"], ",.0f"),
            _median(found["p50_ms"], ".1f"),
            _median(found["p99_ms"], ".1f"),
            _median(found["alone_p50_ms"], ".2f"),
            _spread(found["images_per_second"], ",.0f"),
            _median(found["server_cores"], ".2f"),
            _median(found["requests_per_cpu_second"], ",.0f"),
            f"{memory['median'] / 1e6:,.0f}" if memory else "–",
            ", ".join(f"{kind}: {count}" for kind, count in found["errors"].items()) or "0",
        ])  # fmt: skip
    if not document["goals"]:
        return
    yield ""
    yield "| ours | ratio | goal | |"
    yield "| --- | --- | --- | --- |"
    for goal in document["goals"]:
        yield cells([goal["what"], f"{goal['ratio']:.2f}", f"{goal['goal']:g}", "met" if goal["met"] else "missed"])


def _spread(found: Row | None, form: str) -> str:
    if found is None:
        return "–"
    median, smallest, largest = (format(found[key], form) for key in ("median", "min", "max"))
    return f"{median} ({smallest} to {largest})"


def _median(found: Row | None, form: str) -> str:
    return format(found["median"], form) if found else "–"


if __name__ == "__main__":
    main()
