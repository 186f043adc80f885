"""The built-in methods: one method, one file. Each family registers as a stranger's would."""
