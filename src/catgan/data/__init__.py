"""Where real samples come from. A dataset answers for rows by number; their order is `catgan.data.order`'s."""

from catgan.data.ahead import ahead
from catgan.data.datasets import Dataset, check_fits, open_dataset, raw_images
from catgan.data.order import rows

__all__ = ["Dataset", "ahead", "check_fits", "open_dataset", "raw_images", "rows"]
