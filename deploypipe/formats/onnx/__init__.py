"""ONNX: one file, symbolic axes, run by ONNX Runtime.

read.py      a session from a file
write.py     a file from a captured program
bfloat16.py  what computes in bfloat16, between casts
exporter.py  torch's exporter, with lowerings of our own
lowerings/   what an operator becomes where the exporter lacks it or has it wrong
inspect.py   the inside of a file
"""

from deploypipe.formats.format import Format

FORMAT = Format("onnx", ".onnx", "any captured program; runs wherever ONNX Runtime does", __name__)
