"""pt2: a saved `torch.export` program, run by PyTorch.

read.py     a session from a file
write.py    a file from a captured program
inspect.py  the inside of a file
"""

from deploypipe.formats.format import Format

FORMAT = Format("pt2", ".pt2", "any captured program; runs with torch, without the model's source", __name__)
