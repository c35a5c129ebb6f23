"""Before the next step: a model, its batches and optimizer in; proofs about them out.

`prove.py` tells the story and holds the table `PROOFS`; every other file proves a few things that
belong together. Only the `LanguageModel` protocol is used, so a model of your own is proved as
ours is; what it cannot do is `not_assessed`, with the reason.
"""
