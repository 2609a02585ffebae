"""Soft targets from a teacher: its arrays, checked and brought to one form, and the loss."""
