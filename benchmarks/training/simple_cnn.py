"""`simple-cnn` (conv 10, conv 20, 50 hidden) as its tutorial trains it: SGD with 0.01, batches of 100, 10 epochs."""

from functools import partial

from loop import Recipe, main
from torch.optim import SGD

from deploypipe.models.classifiers import simple_cnn

RECIPE = Recipe("simple-cnn", simple_cnn, partial(SGD, lr=0.01), batch_size=100, epochs=10)

if __name__ == "__main__":
    main(RECIPE, __doc__)
