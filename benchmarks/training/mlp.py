"""`mlp` (784 → 128 → 10) as its tutorial trains it: Adam with 0.001, batches of 64, 10 epochs."""

from functools import partial

from loop import Recipe, main
from torch.optim import Adam

from deploypipe.models.classifiers import mlp

RECIPE = Recipe("mlp", mlp, partial(Adam, lr=1e-3), batch_size=64, epochs=10)

if __name__ == "__main__":
    main(RECIPE, __doc__)
