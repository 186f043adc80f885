"""Data: from rows in a file to the padded batches of each optimizer step.

Rows are read by ``sources`` and ``files``; ``templates`` turn a row into text and tokens;
``examples`` encode a whole set; ``sampling`` decides which examples each step sees; ``batches``
pads those into tensors.
"""

from __future__ import annotations
