"""Documents → scores, computed once; scores → reasons to drop a document, or none."""
