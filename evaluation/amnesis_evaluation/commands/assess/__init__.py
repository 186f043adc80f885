"""``amnesis assess``: what a model knows, what goes with it, and what forgetting it will take.

``record`` holds what is said, as it is stored. ``knowledge``, ``alignment``, ``overlap`` and
``methods`` each answer one question of it; ``corpus`` finds candidates where nobody knows yet what
must go, and ``personal`` marks the kinds of personal data in them. ``page`` shows it, ``command``
puts it together.
"""
