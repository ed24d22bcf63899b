"""Models on servers that others wrote, asked for what they take and for their answers; no torch.

- `asking`: HTTP with headers of one's own, and what is wrong in one line.
- `endpoint`: one model of one server: what it declares, and its outputs for given inputs.
- `inference_protocol`: the Open Inference Protocol v2, as Triton, MLServer, KServe and OpenVINO Model Server speak it.
- `tensorflow_rest`: `/v1/models/<name>:predict` with `instances`, as TensorFlow Serving and KServe v1 speak it.
- `discovery`: which of them a server speaks.
- `fitting`: which of an endpoint's tensors each of a module's is.
- `endpoint_session`: an endpoint as a session, so that the gate compares it as it does an artifact.
"""
