"""Tables of numbers as text: lines, cells, and digits that round-trip."""
