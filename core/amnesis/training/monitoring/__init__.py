"""What can be watched of a run while it goes on: TensorBoard's files, and others' trackers.

The trainer logs a step's values; ``board`` writes them with all that TensorBoard shows beside into
the files of ``events``, and ``trackers`` hands them on. None of it can stop a run.
"""
