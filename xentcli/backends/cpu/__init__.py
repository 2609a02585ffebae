"""Compiled kernels for the cores of this machine, with Numba."""
