"""Training: two gradient streams per optimizer step, inside transformers' Trainer.

``unlearner`` puts a run together from rows, a model and a method, with the sizes of ``settings``.
``trainer`` makes the steps: each stream's batches become a loss and a gradient, and ``streams``
combines the two in place. ``probing`` shows them to probes; ``report`` holds what a step logs;
``callbacks`` and ``stopping`` follow the run, and ``checkpoints`` store it.
"""
