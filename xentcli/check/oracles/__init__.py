"""Exact losses and gradients to judge against, which share no formula with the kernels."""
