"""The arrays that pass between decoding and the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # (batch, height, width, channels)
Probabilities = NDArray[np.float32]  # (batch, classes)
ALL_BITS = (0.0, 65535.0)  # the scale of a file that says nothing about pixels of more than 8 bits
