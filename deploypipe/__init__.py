"""deploypipe takes a PyTorch model from training to a served endpoint."""
