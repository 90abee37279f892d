"""JSON Schemas, as requests state them, in the few keywords that the grammar engine enforces.

`clean.py` is the way in. `reading.py` bounds a schema, resolves its references and translates old drafts;
`rewriting.py` says the keywords that the engine lacks in others, with `negation.py` for whatever must not be;
`closing.py` decides which objects take no further keys; `dead_ends.py` finds what no value satisfies. `regular.py`
knows regular languages, `patterns.py` reads them, `strings.py` has formats. Every rule is exact or allows less, never
more, but for tools that are not strict, where what can't be said is left out and named.
"""
