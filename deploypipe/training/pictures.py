"""A training in pictures: PNG files in the run directory, and the same in TensorBoard.

matplotlib is imported when there is something to draw, and without pyplot: its own canvas needs no display.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deploypipe.data import Split
from deploypipe.files import atomic_path
from deploypipe.training.range_test import RangeTest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = CURVES, CONFUSION, MISTAKES = "curves.png", "confusion.png", "mistakes.png"
ROWS, COLUMNS = 3, 8
"""Of the worst mistakes."""


def curves(path: Path, steps: Mapping[str, Tensor], length: int, history: Sequence[Mapping[str, Any]]) -> Path:
    """Of `steps` ("loss", "accuracy"; float [n], `length` to an epoch) each one in grey, and the epochs' on top."""
    figure = new_figure(4.5 * len(steps), 3.5)
    axes = figure.subplots(1, len(steps), squeeze=False)[0]
    count = len(steps["loss"])
    places = [(step + 1) / length for step in range(count)]
    ends = [min(float(row["epoch"]), count / length) for row in history]
    for one, (name, values) in zip(axes, steps.items(), strict=True):
        one.plot(places, values.tolist(), color="0.75", linewidth=0.7, label="each step")
        for key in (name, f"validation_{name}"):
            if key in history[0]:
                one.plot(ends, [row[key] for row in history], marker=".", label=key.replace("_", " "))
        one.set(title=name, xlabel="epoch", yscale="log" if name == "loss" else "linear")
        one.legend(fontsize=8)
    return save(figure, path)


def confusion(path: Path, matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Path:
    """Rows are true classes; coloured by what is off the diagonal, or the diagonal would be all there is to see."""
    counts = torch.tensor(matrix)
    figure = new_figure(6.5, 6)
    axes = figure.subplots()
    wrong = counts - torch.diag(counts.diagonal())
    axes.imshow(wrong.numpy(), cmap="Reds")
    for i, row in enumerate(counts.tolist()):
        for j, count in enumerate(row):
            colour = "0.5" if i == j else "white" if 2 * count > wrong.max() else "black"
            axes.text(j, i, str(count), ha="center", va="center", fontsize=8, color=colour)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="predicted", ylabel="true class", title="test images")
    return save(figure, path)


def mistakes(path: Path, split: Split, logits: Tensor, classes: Sequence[str]) -> Path:
    """The images of `split` (`uint8 [n, 1, height, width]`) whose true class got the least probability, worst first,
    of those that are classified wrongly; with both classes and the probability of the wrong one."""
    chances = logits.softmax(1)
    found = chances.argmax(1)
    worst = chances.gather(1, split.targets[:, None])[:, 0].argsort()
    worst = worst[(found != split.targets)[worst]][: ROWS * COLUMNS]
    height, width = split.inputs.shape[2] + 10, split.inputs.shape[3] + 4
    wall = torch.full((ROWS * height, COLUMNS * width), 255, dtype=torch.uint8)
    figure = new_figure(COLUMNS * 1.1, ROWS * 1.3)
    axes = figure.subplots()
    for place, i in enumerate(worst.tolist()):
        true, wrong = int(split.targets[i]), int(found[i])
        top, left = place // COLUMNS * height + 10, place % COLUMNS * width + 2
        wall[top : top + height - 10, left : left + width - 4] = split.inputs[i, 0]
        text = f"{classes[true]} as {classes[wrong]}, {chances[i, wrong]:.0%}"
        axes.text(left + (width - 4) / 2, top - 2, text, ha="center", fontsize=7)
    axes.imshow(wall.numpy(), cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    return save(figure, path)


def rates(path: Path, found: RangeTest) -> Path:
    figure = new_figure(6, 3.5)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses)
    axes.axvline(found.suggestion, color="0.5", linestyle="--", label=f"suggestion {found.suggestion:g}")
    axes.set(xlabel="learning rate", ylabel="loss", xscale="log")
    axes.legend()
    return save(figure, path)


def to_tensorboard(folder: Path, pictures: Sequence[Path], step: int) -> None:
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as board:
        for path in pictures:
            with Image.open(path) as image:
                board.add_image(path.stem, np.asarray(image.convert("RGB")), step, dataformats="HWC")


def new_figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="tight")


def save(figure: "Figure", path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
