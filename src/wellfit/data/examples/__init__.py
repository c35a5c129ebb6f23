"""Files of examples → tokens, and what is asked of each: the other way to a corpus."""
