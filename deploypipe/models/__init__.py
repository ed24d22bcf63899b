"""The zoo: the networks, by name.

classifiers.py networks from pixels to logits
dynamic.py     networks whose control flow depends on what they are given
examples.py    example inputs
layers.py      the layers of a network, in words
regression.py  the straight line
trained.py     the trained network of a run
zoo.py         what there is to know of each network, read without torch
"""

from deploypipe.models.zoo import DEFAULT, MODELS, Entry, entry_of

__all__ = ["DEFAULT", "MODELS", "Entry", "entry_of"]
