"""Arrays: dtypes, memory layout, exact sums, descriptions of device arrays."""
