"""Unfold times into numbers, for the fitted pipeline and for a server without pandas alike."""

import numpy as np
import numpy.typing as npt

CALENDAR = ("days", "month", "weekday", "hour")
_DAY, _HOUR = 86_400_000_000, 3_600_000_000  # in µs


def calendar(moments: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    """Return days since 1970, month, weekday and hour of each moment in µs: (n, k) → (n, 4k), NaN if missing."""
    since = moments.view(np.int64)
    parts = np.empty((*moments.shape, len(CALENDAR)))
    parts[..., 0] = since / _DAY
    parts[..., 1] = moments.astype("datetime64[M]").view(np.int64) % 12 + 1
    parts[..., 2] = (since // _DAY + 3) % 7  # 1970 began on a Thursday
    parts[..., 3] = since // _HOUR % 24
    parts[np.isnat(moments)] = np.nan
    return parts.reshape(len(moments), -1)
