"""The campaigns of `reliability.py`: what befalls programs, and what bad input does to them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests" / "processes"))  # programs and faults, which the tests use too
