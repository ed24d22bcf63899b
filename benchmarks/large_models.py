"""Three large models as ONNX: deploypipe's whole export (capture, write, prove, seal) beside the plain exporter, and
what it takes to verify the plain exporter's file.

    python benchmarks/large_models.py [--only NAME,…] [--into docs/models.md]

The models are resnet50 and vit_b_16 of torchvision and an encoder of the size of BERT base, with random weights and a
dynamic batch. The plain side is `torch.onnx.export(dynamo=True)`, its file loaded by onnxruntime and run once. Each
side runs in a process of its own, which is watched from outside: processor seconds are those of the process and of all
that it starts; memory is the most that they held together, where pages that they share count for each.

It needs torchvision and transformers (`pip install --editable '.[zoo]'`) and 6 GB of memory.
"""

import argparse
import multiprocessing
import resource
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deploypipe.bench.usage import memory_held

PLAIN = "plain.onnx"
BEGIN, END = "<!-- large models: begin -->", "<!-- large models: end -->"


def image() -> tuple[Tensor, ...]:
    return (torch.randn(2, 3, 224, 224),)


def tokens() -> tuple[Tensor, ...]:
    return torch.randint(1000, (2, 64)), torch.ones(2, 64, dtype=torch.int64)


def resnet50() -> nn.Module:
    import torchvision

    return torchvision.models.resnet50(weights=None)  # type: ignore[no-any-return]


def vit_b_16() -> nn.Module:
    import torchvision

    return torchvision.models.vit_b_16(weights=None)  # type: ignore[no-any-return]


def bert_base() -> nn.Module:
    import transformers

    return transformers.BertModel(transformers.BertConfig())  # type: ignore[no-any-return]


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]], dict[str, dict[int, str]]]] = {
    "resnet50": (resnet50, image, {"x": {0: "batch"}}),
    "vit_b_16": (vit_b_16, image, {"x": {0: "batch"}}),
    "BERT base": (bert_base, tokens, {"input_ids": {0: "batch"}, "attention_mask": {0: "batch"}}),
}


def plain(name: str, folder: Path) -> None:
    import onnxruntime

    make, inputs, dynamic = MODELS[name]
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in dynamic.values())
    module = make().eval()
    torch.onnx.export(module, inputs(), folder / PLAIN, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(folder / PLAIN)
    given = zip(session.get_inputs(), inputs(), strict=True)
    session.run(None, {taken.name: tensor.numpy() for taken, tensor in given})


def ours(name: str, folder: Path) -> None:
    import deploypipe

    make, inputs, dynamic = MODELS[name]
    deploypipe.export(make().eval(), inputs(), format="onnx", path=folder / "ours.onnx", dynamic=dynamic)


def verify(name: str, folder: Path) -> None:
    import deploypipe

    make, inputs, dynamic = MODELS[name]
    deploypipe.verify(make().eval(), folder / PLAIN, example=inputs(), dynamic=dynamic).raise_if_failed()


def watched(run: Callable[[str, Path], None], name: str, folder: Path) -> tuple[float, float]:
    """Processor seconds, and the most memory in GB."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_counted, args=(run, name, folder, answers))
    most, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, memory_held(process.pid or 0))

    process.start()
    watcher = threading.Thread(target=watch)
    watcher.start()
    process.join()
    ended.set()
    watcher.join()
    if process.exitcode:
        raise SystemExit(f"error: {name} by {run.__name__} ended with {process.exitcode}")
    return answers.get(), most / 1e9


def _counted(run: Callable[[str, Path], None], name: str, folder: Path, answers: Any) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)  # the same weights for the file and for who verifies it
    run(name, folder)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    answers.put(sum(each.ru_utime + each.ru_stime for each in used))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(MODELS), help="some of: " + ", ".join(MODELS))
    parser.add_argument("--into", type=Path, metavar="PAGE", help="replace that page's table")
    chosen = parser.parse_args()
    rows = [
        "| model | plain, CPU s | export, CPU s | times | verify, CPU s | times "
        "| plain, GB | export, GB | times | verify, GB |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name in chosen.only.split(","):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            runs = [watched(run, name, Path(folder)) for run in (plain, ours, verify)]
        (own, held), (seconds, memory), (verified, its_memory) = runs
        rows.append(
            f"| {name} | {own:.0f} | {seconds:.0f} | {seconds / own:.1f} | {verified:.0f} | {verified / own:.1f} |"
            f" {held:.1f} | {memory:.1f} | {memory / held:.1f} | {its_memory:.1f} |"
        )
        print(rows[-1], f"({time.monotonic() - began:.0f} s)", flush=True)
    if chosen.into:
        before, _, rest = chosen.into.read_text().partition(BEGIN)
        chosen.into.write_text("\n".join([before + BEGIN, "", *rows, "", END + rest.partition(END)[2]]))


if __name__ == "__main__":
    main()
