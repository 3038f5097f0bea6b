"""How one weight got its new value, line by line."""
