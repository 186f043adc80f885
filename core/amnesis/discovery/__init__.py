"""Discovery: entry points are loaded, their hooks called, and names become components.

``hookspecs`` is the whole surface that a plugin implements; ``manager`` loads plugins, ``registry``
records who brought which name, ``resolve`` builds what a person named.
"""
