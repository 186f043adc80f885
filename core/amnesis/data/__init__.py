"""Data: rows are read, become examples by a template, and are drawn into batches.

``sources`` and ``files`` read rows; ``templates`` say how a row becomes text and tokens;
``examples`` encode a set; ``sampling`` says which examples each step sees; ``batches`` pads them.
"""

from __future__ import annotations
