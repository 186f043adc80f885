"""Training: two gradient streams per optimizer step, inside transformers' Trainer.

The ``unlearner`` puts a run together; the ``trainer`` makes its steps; ``streams`` combines two
gradients in place; ``probing`` shows them to probes, and a step's ``report`` is what is logged.
"""
