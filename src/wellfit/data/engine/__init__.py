"""Maps and exchanges over files, resumable at any moment.

    tasks ─▶ map ─▶ one file and one marker each        (inline or in worker processes)
    files ─▶ exchange ─▶ rows regrouped by key, bucket by bucket, through files

A task is keyed by the digests of its inputs, the version of its code and its parameters. A marker
that still matches its file is reused, so resuming and caching are one mechanism.
"""
