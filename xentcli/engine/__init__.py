"""From arrays to results: targets, reductions, whole arrays and streams of them."""
