"""Zarr arrays, versions 2 and 3: folders of chunks, on this machine or at an address."""
