"""Export: the integer-network representation, lowering from PyTorch, and the netx HDF5 file."""
