"""Numbers and where they lie: dtypes, memory layout, exact sums, device arrays."""
