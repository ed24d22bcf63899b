"""TorchScript: scripted, never traced, run by PyTorch (Python or C++).

PyTorch 2.10 deprecated TorchScript and says so at each call. The format is still what many servers load, so its
warnings are silenced in this folder, the only one that uses it.

read.py     a session from a file
write.py    a file from a captured program
printer.py  the source of a script module, printed from a captured program
inspect.py  the inside of a file
"""

from deploypipe.formats.format import Format

FORMAT = Format(
    "torchscript", ".pt", "what torch.jit.script takes, and any captured program; loads in C++ and in older servers",
    __name__,
)  # fmt: skip
