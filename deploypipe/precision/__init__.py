"""Artifacts of lower precision: how they are written. What they are held to is in parity/standards.py.

int8.py  an ONNX artifact rounded to 8 bits by onnxruntime's static quantisation
"""
