"""Parquet and Arrow files, read by pyarrow (the extra `arrow`)."""
