"""The one door to torch's insides: every private or experimental API of torch that this package uses.

Each entry has a canary in `tests/test_torch_compat.py` that fails first, and by name, when a release of torch moves
what the entry stands on. Nothing else in the package touches such an API.

- `around`: modules that stand for another one
- `dispatch`: watching every operator that runs, what an operator's schema says, and trees of arguments
- `guards`: what a trace concluded about sizes, and who asked
- `kernels`: what a training takes of torch's own parts
- `nodes`: containers that are registered with torch's pytree
- `onnx_exporter`: what must be repaired in torch's ONNX exporter
- `operators`: the one table of functions that draw random numbers, and of names that change a tensor in place
- `packed`: packed sequences while a program is traced
- `quantized`: what `torch.ao.quantization.quantize_dynamic` makes of linear layers
- `recurrent`: shapes of LSTM, GRU and RNN without unrolling them
- `scripted`: script modules, called as other modules are and converted to graphs that can be traced
- `script_graphs`: the graphs of script modules, read, simplified and run
- `symbols`: symbolic sizes and numbers, and the guards that torch collects about them (imports SymPy, which is slow)
- `tracing`: the tracer that `torch.export` runs, the fake tensors under it, and what must be repaired in it
- `wrappers`: what `torch.compile`, `DataParallel` and `DistributedDataParallel` put around a module, and what we put
  around a script module
"""
