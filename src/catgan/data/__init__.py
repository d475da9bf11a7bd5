"""Where real samples come from. A dataset answers for rows by number; their order is `catgan.data.order`'s."""

from catgan.data.datasets import Dataset, check_fits, data_identity, is_data_of, known_classes, open_dataset, raw_images
from catgan.data.order import rows
from catgan.data.prefetch import prefetch

__all__ = [
    "Dataset",
    "check_fits",
    "data_identity",
    "is_data_of",
    "known_classes",
    "open_dataset",
    "prefetch",
    "raw_images",
    "rows",
]
