"""The published settings of pytorch/examples' `mnist/main.py`, written anew.

Two 3×3 convolutions of 32 and 64 filters, dropout of 0.25 and 0.5, 9216 → 128 → 10; Adadelta with a learning rate of 1
that each epoch takes times 0.7; batches of 64, 14 epochs, the test set after each. On the CPU that example does not
shuffle; on a GPU it does, and loads with one worker.
"""

from functools import partial

from loop import Recipe, main
from torch import nn
from torch.nn import functional as F
from torch.optim import Adadelta
from torch.optim.lr_scheduler import StepLR


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
        nn.LogSoftmax(dim=1),
    )


RECIPE = Recipe(
    "pytorch-examples",
    network,
    partial(Adadelta, lr=1.0),
    batch_size=64,
    epochs=14,
    scheduler=partial(StepLR, step_size=1, gamma=0.7),
    loss=F.nll_loss,
    shuffled_on_cpu=False,
)

if __name__ == "__main__":
    main(RECIPE, __doc__)
