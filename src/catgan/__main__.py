"""`python -m catgan` is `catgan`."""

import sys

from catgan.cli import main

sys.exit(main())
