"""GPUs and the CPU: which are there, which is taken, what they can compute, how long they last."""
