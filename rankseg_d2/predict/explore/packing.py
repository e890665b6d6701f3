"""Arrays as text in a page: quantised, compressed, in base64."""

import base64
import zlib
from typing import Any

import numpy as np

_BEND = 0.5  # logits of masks are finest below this


def pack(values: np.ndarray) -> dict[str, Any]:
    """What `unpack` in resizing.js reads: little-endian float32, uint8 or uint16."""
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    data = base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()
    return {"type": values.dtype.name, "shape": list(values.shape), "data": data}


def quantize(maps: np.ndarray, bits: int, bent: bool) -> dict[str, Any]:
    """Maps (N, h, w) as codes; a value of map n is low[n] + step[n] * code, or what it is bent to.

    Logits of masks are bent by sinh: those near 0, where edges are, are the finest, and the largest
    are kept.
    """
    flat = np.arcsinh(maps / _BEND) if bent else maps
    low, high = flat.min((1, 2)).astype(np.float64), flat.max((1, 2)).astype(np.float64)
    step = np.maximum(high - low, 1e-9) / (2**bits - 1)
    codes = np.rint((flat - low[:, None, None]) / step[:, None, None])
    codes = codes.astype(np.uint8 if bits <= 8 else np.uint16)
    return {
        "codes": pack(codes),
        "low": low.tolist(),
        "step": step.tolist(),
        "bend": _BEND if bent else None,
    }
