"""Batches in, batches with something hidden out: a pure function of a key and of each row's number.

`batches.Batches` and `batches.Rows` take such a function. What is hidden in a row follows from the
key, the number of its visit and the place within it, so that micro-batches, workers, a resume or a
rewind change nothing; another visit of the same row hides something else.
"""
