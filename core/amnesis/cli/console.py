"""The terminal: libraries kept quiet."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off the terminal; for use at the command line's edge."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
