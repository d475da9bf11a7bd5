"""The campaigns of `reliability.py`: what befalls programs, and what bad input does to them."""
