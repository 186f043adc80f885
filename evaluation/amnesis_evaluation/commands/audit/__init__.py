"""``amnesis audit``: does a model keep a policy, recorded so that others can check it later.

``policy`` reads what is required, ``plan`` checks all of it before a weight is loaded, ``auditing``
measures a model, ``requirements`` compares. What comes of it is a record (``records``) that
``history`` appends to a chain and ``signing`` signs; ``verification`` checks a chain, and whether a
model is the one in it (``identity``). ``watching`` finds new models, ``shown`` is for people.
"""
