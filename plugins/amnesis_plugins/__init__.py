"""The built-in methods, one file each, registered by the same hooks as anyone else's plugins."""
