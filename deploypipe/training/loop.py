"""The state of a training, and one step of it.

The data stays on the device as it is (`uint8`), batches are drawn by index and augmented as tensors: nothing runs in
Python per image, and nothing waits for the device within an epoch unless it is asked.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from deploypipe.data import Dataset, Split
from deploypipe.errors import UsageError
from deploypipe.evaluate import BATCH
from deploypipe.models import entry_of
from deploypipe.training import augment, optim, seeds
from deploypipe.training.average import Average
from deploypipe.training.config import TrainConfig
from deploypipe.training.distributed import ALONE, Group

EXPLODED = 1e6
"""A training whose loss is above this has failed."""


@dataclass(frozen=True)
class Progress:
    """How far a training is. A listener hears of it a few times a second."""

    epoch: int
    epochs: int
    step: int
    steps: int
    """How many steps this epoch has."""
    loss: float
    accuracy: float | None
    """Loss and accuracy are means over this epoch's examples so far, each as it was when it was trained on."""
    images_per_second: float


@dataclass
class Exploded(Exception):
    """The loss stopped being a number, or one of any use."""

    loss: float
    epoch: int
    step: int
    """Within the epoch. Epoch and step are counted from 1."""


class Loop:
    """`advance` until `done`; at every `at_epoch_end` there is `finish_epoch` to call first.

    After any step, `state` is all that a new Loop of the same configuration and data needs to go on to the same bits.
    Each process of `group` has its own, all of them in the same state after each step.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, device: torch.device, group: Group = ALONE) -> None:
        assert config.epochs is not None
        self.config, self.device, self.group = config, device, group
        self.module = _build(config)
        self.training, self.validation = _split(dataset.train, config)
        if self.training.inputs.dtype == torch.uint8:
            pixels = self.training.inputs.float()
            self.module.mean.fill_(pixels.mean())  # type: ignore[operator]
            self.module.std.fill_(pixels.std())  # type: ignore[operator]
        self.module.to(device).to(memory_format=torch.channels_last)
        self.inputs, self.targets = self.training.inputs.to(device), self.training.targets.to(device)
        self.classify = not self.targets.is_floating_point()
        self.augmented = bool(config.augment) and self.inputs.dtype == torch.uint8
        self.optimizer = optim.build(config.optimizer, self.module)
        self.average = Average(self.module, config.average) if config.average else None
        self.forward = group.wrap(self.module)
        self.generators = seeds.generators_of(device)
        whole, rest = divmod(len(self.training), config.batch_size)
        self.steps = whole + (2 * rest >= config.batch_size) or 1
        """How many steps an epoch has. What is left over, less than half a batch, is used in other epochs."""
        self.all_steps = round(config.epochs * self.steps) or 1
        self.epochs = math.ceil(self.all_steps / self.steps)
        """How many epochs there are; the last one may end early."""
        self.step = 0
        """How many steps are done, in all epochs."""
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] | None = None
        self.best_loss, self.epochs_without_gain = math.inf, 0
        # A place for each step: which one went wrong can be found later, without waiting for the device at each step.
        self.losses = torch.zeros(self.all_steps, device=device)
        self.hits = torch.zeros(self.all_steps, device=device)
        sizes = [len(batch) for batch in torch.split(self.targets, config.batch_size)][: self.steps]
        self.sizes = torch.tensor(sizes, dtype=torch.float64)
        self._begin_epoch()

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    @property
    def place(self) -> int:
        """How many steps are done of the epoch that is not finished."""
        return max(self.step - self.epoch * self.steps, 0)

    @property
    def at_epoch_end(self) -> bool:
        return self.place == self.steps_now

    @property
    def steps_now(self) -> int:
        """How many steps the epoch has that is not finished."""
        return min(self.steps, self.all_steps - self.epoch * self.steps)

    @property
    def examples(self) -> int:
        """How many examples were trained on so far, in all epochs."""
        epochs, place = divmod(self.step, self.steps)
        return int(epochs * self.sizes.sum() + self.sizes[:place].sum())

    @property
    def done(self) -> bool:
        patience = self.config.patience
        return self.epoch == self.epochs or (bool(patience) and self.epochs_without_gain >= patience)

    def advance(self) -> None:
        """One step: the next batch of this epoch's order, its gradient, the optimizer's step."""
        share = self.config.schedule.share(self.step / self.all_steps)
        self.losses[self.step], self.hits[self.step] = self.learn(self.batch(self.place), share)
        self.step += 1
        if self.average:
            self.average.update(self.step)

    def batch(self, place: int) -> Tensor:
        """The examples of the step at this place of this epoch; from its beginning again where its order ends."""
        start = place % self.steps * self.config.batch_size
        return self.order[start : start + self.config.batch_size]

    def learn(self, index: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """A step on these examples, with this share of the peak learning rate: their mean loss, and how many of them
        were classified correctly. Neither is waited for."""
        own = self.group.share(len(index))
        self._seed("step")
        numbers = torch.rand(augment.NUMBERS, len(index), device=self.device) if self.augmented else None
        if not self.group.leads:
            self._seed(f"step of process {self.group.rank}")  # or each part would lose the same places to dropout
        self.optimizer.set_rate(share)
        inputs, targets = self.inputs[index[own.part]], self.targets[index[own.part]]
        if numbers is not None:
            inputs = augment.augment(inputs, self.config.augment, numbers[:, own.part])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            outputs = self.forward(inputs)
        loss = own.weigh(self._loss(outputs.float(), targets, self.config.loss.label_smoothing))
        total = loss + self.config.loss.l1 * self._size() if self.config.loss.l1 else loss
        self.optimizer.zero_grad()
        torch.autograd.backward(total)
        self.optimizer.step()
        hits = (outputs.detach().argmax(1) == targets).sum() if self.classify else torch.zeros(())
        return self.group.mean(loss.detach()), self.group.sum(hits)

    def standing(self) -> tuple[float, float | None]:
        """Loss and accuracy of this epoch's examples so far (waits for the device). Exploded where there are none."""
        losses, hits = torch.stack([self.losses, self.hits])[:, self.step - self.place : self.step].double().cpu()
        bad = ~(losses < EXPLODED)
        if bad.any():
            step = int(bad.nonzero()[0])
            raise Exploded(float(losses[step]), self.epoch + 1, step + 1)
        sizes = self.sizes[: self.place]
        seen = sizes.sum().clamp(min=1)
        loss, accuracy = ((losses * sizes).sum() / seen).item(), (hits.sum() / seen).item()
        return loss, accuracy if self.classify else None

    def by_step(self) -> dict[str, Tensor]:
        """Loss, and accuracy of a classifier, of the examples of every step so far, on the CPU."""
        sizes = self.sizes.repeat(self.epochs)[: self.step]
        found = {"loss": self.losses[: self.step].cpu()}
        return found | {"accuracy": self.hits[: self.step].cpu() / sizes} if self.classify else found

    def finish_epoch(self) -> dict[str, Any]:
        """The row that the history gets: the epoch, its loss and accuracy, and those on the validation split."""
        loss, accuracy = self.standing()
        row: dict[str, Any] = {"epoch": self.epoch + 1, "loss": loss}
        if accuracy is not None:
            row["accuracy"] = accuracy
        if self.validation:
            row |= self.group.from_leader(self._validated)
            self._judge(row["validation_loss"])
        self.history.append(row)
        if not self.done:
            self._begin_epoch()
        return row

    def weights(self) -> dict[str, Tensor]:
        """What would be kept if the training ended now: the module's state, or its mean over the steps."""
        return self.module.state_dict() | (self.average.weights if self.average else {})

    def is_sound(self) -> bool:
        """Whether every weight is finite. The losses do not say: the last one was computed before the last step."""
        return all(bool(tensor.isfinite().all()) for tensor in self.module.state_dict().values())

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "history": self.history,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "hits": self.hits,
            "average": self.average.weights if self.average else None,
            "best": self.best,
            "best_loss": self.best_loss,
            "epochs_without_gain": self.epochs_without_gain,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Back to `state`; whatever error the parts raise where it is not one of this configuration."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.restore(state["average"])
        self.step, self.history = state["step"], list(state["history"])
        self.losses.copy_(state["losses"])
        self.hits.copy_(state["hits"])
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.epochs_without_gain = state["epochs_without_gain"]
        if not self.done:
            self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.module.train()
        self.order = seeds.permutation(len(self.training), self.config.seed, "order", self.epoch).to(self.device)

    def _loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        if self.classify:
            return F.cross_entropy(outputs, targets, label_smoothing=smoothing)
        return F.mse_loss(outputs, targets)

    def _size(self) -> Tensor:
        return torch.stack([weight.abs().sum() for weight in self.module.parameters()]).sum()

    def _validated(self) -> dict[str, float]:
        assert self.validation
        self.module.eval()
        weights = self.weights()
        with torch.no_grad():
            outputs = torch.cat(
                [functional_call(self.module, weights, batch.to(self.device)).cpu()
                 for batch in torch.split(self.validation.inputs, BATCH)]
            )  # fmt: skip
        found = {"validation_loss": self._loss(outputs, self.validation.targets).item()}
        if self.classify:
            found["validation_accuracy"] = (outputs.argmax(1) == self.validation.targets).float().mean().item()
        return found

    def _judge(self, validation_loss: float) -> None:
        """Keep the weights that are the best so far."""
        if validation_loss < self.best_loss:
            self.best_loss, self.epochs_without_gain = validation_loss, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.weights().items()}
        else:
            self.epochs_without_gain += 1

    def _seed(self, purpose: str) -> None:
        for generator in self.generators:
            generator.manual_seed(seeds.derived(self.config.seed, purpose, self.step))


def _build(config: TrainConfig) -> nn.Module:
    torch.manual_seed(seeds.derived(config.seed, "weights"))
    module = entry_of(config.model).build()
    for layer in module.modules():
        if isinstance(layer, nn.Dropout) and config.dropout is not None:
            layer.p = config.dropout
    return module


def _split(split: Split, config: TrainConfig) -> tuple[Split, Split | None]:
    held = round(len(split) * config.validation)
    if not held:
        return split, None
    if held == len(split):
        raise UsageError(f"validation is {config.validation}: of {len(split):,} examples none is left to train on",
                         "Hold back fewer.")  # fmt: skip
    order = seeds.permutation(len(split), config.seed, "validation")
    kept, back = order[held:], order[:held]
    return Split(split.inputs[kept], split.targets[kept]), Split(split.inputs[back], split.targets[back])
