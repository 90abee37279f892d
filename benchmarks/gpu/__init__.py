"""The engine on NVIDIA GPUs: what the compiler makes of it (`ahead`, without a GPU) and what a device makes of that."""
