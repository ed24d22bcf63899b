"""`cnn` (conv 32, conv 64, 1024 hidden) as its tutorial trains it: SGD with 0.01 and momentum 0.9, batches of 64, 10
epochs."""

from functools import partial

from loop import Recipe, main
from torch.optim import SGD

from deploypipe.models.classifiers import cnn

RECIPE = Recipe("cnn", cnn, partial(SGD, lr=0.01, momentum=0.9), batch_size=64, epochs=10)

if __name__ == "__main__":
    main(RECIPE, __doc__)
