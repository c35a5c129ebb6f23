"""Documents → rows that cut only those longer than a row, at the price of padding."""
