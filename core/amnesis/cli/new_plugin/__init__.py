"""``amnesis new-plugin``: a package to begin with, from templates beside this file."""
