"""``python -m amnesis``, which is also what ``torchrun -m amnesis run …`` starts."""

import sys

from amnesis.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
