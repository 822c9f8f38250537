"""What a record may say at most: files are read that say a billion. Checked before anything is allocated."""

from __future__ import annotations

MAX_CHANNELS = 2**16
"""Channels of an image or of a hidden layer."""

MAX_CONVS = 64
"""Convolutions of a head."""

MAX_RATE = 2**10
"""Dilation of a head's convolution: a map is padded by as many cells on every side."""

MAX_MULTIPLE = 2**10
"""`size_multiple`: the smallest picture is padded to it; networks reduce by 64 at most."""

MAX_SIDE = 2**14
"""Pixels of a side that pictures are resized to."""

SMALLEST_STD = 1e-6
"""Deviation by which pixels are divided."""

LARGEST_STATISTIC = 1e6
"""Mean and deviation of pixels, which are 0…65,535 at most."""
