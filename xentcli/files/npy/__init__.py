"""NumPy's .npy files: the header, and the array after it in C or Fortran order."""
