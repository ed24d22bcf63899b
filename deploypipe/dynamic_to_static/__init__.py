"""Writers of two formats: `torchscript.py` prints a captured program as TorchScript, `onnx.py` hands it to torch's
exporter."""
