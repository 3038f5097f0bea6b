"""Data-parallel training: processes that follow the mean of their gradients, over MPI."""
