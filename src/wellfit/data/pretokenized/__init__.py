"""Tokens that another program has made → a corpus folder like any other."""
