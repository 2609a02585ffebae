"""Files and streams of numbers: reading and writing arrays in the formats of `registry`."""
