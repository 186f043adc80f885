"""Discovery: from installed entry points to components by name.

``hookspecs`` is the whole surface that a plugin implements. ``manager`` loads plugins; ``registry``
calls their hooks and holds an ``entry`` for each name; ``resolve`` builds the components that a
recipe names.
"""
