"""A video's display matrix, applied to its pictures.

Cameras and editors store a matrix with a picture that says how to show it: turned by quarters, mirrored, or both. The
nearest of these eight orientations is applied, as in a player that does not resample. Scale and shift are left out,
because the VLM's processor decides a picture's size.

Source: ISO/IEC 14496-12, 6.2.2 and 8.3.2: x' = a x + c y + t_x, y' = b x + d y + t_y.
"""

import math
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import Int64, UInt8

PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
"""What GPUs hand over, and the same numbers as software decoders lay them out: FFmpeg turns that into other RGB."""
_MAX_ANGLE_DEG = 1.0
"""A matrix that is further away from all eight orientations turns or shears the picture by other amounts."""


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """One of eight ways to show a stored picture: first transposed or not, then mirrored or not along either side."""

    is_transposed: bool = False
    is_flipped_down: bool = False
    """Rows from last to first, after transposing."""
    is_flipped_across: bool = False
    """Columns from last to first, after transposing."""
    is_exact: bool = True
    """False if the matrix turns or shears by other amounts, so that this is only the nearest."""

    def apply(self, image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "rows cols 3"]:
        """Show a stored picture."""
        shown = image.transpose(1, 0, 2) if self.is_transposed else image
        shown = shown[:: -1 if self.is_flipped_down else 1, :: -1 if self.is_flipped_across else 1]
        return np.ascontiguousarray(shown)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a stored picture when it is shown."""
        return (width, height) if self.is_transposed else (height, width)


AS_STORED = Orientation()


def orientation_of(matrix: Int64[np.ndarray, "3 3"]) -> Orientation:
    """The orientation that is nearest to a display matrix.

    Args:
        matrix: rows (a, b, u), (c, d, v) and (x, y, w), in any fixed-point unit.
    """
    (a, b), (c, d) = matrix[:2, :2].astype(np.float64).tolist()
    x_length, y_length = math.hypot(a, b), math.hypot(c, d)
    if not x_length or not y_length:  # would show nothing, so it cannot be meant
        return AS_STORED
    a, b, c, d = a / x_length, b / x_length, c / y_length, d / y_length
    is_transposed = abs(b) + abs(c) > abs(a) + abs(d)
    along, down = (c, b) if is_transposed else (a, d)  # what x' and y' are taken from
    # A pure mirror or quarter turn has |along| = |down| = 1, the cosine of the angle by which the picture is off.
    is_exact = min(abs(along), abs(down)) >= math.cos(math.radians(_MAX_ANGLE_DEG))
    return Orientation(
        is_transposed=is_transposed, is_flipped_across=along < 0, is_flipped_down=down < 0, is_exact=is_exact
    )


def orientation(frame: VideoFrame) -> Orientation:
    """How to show a decoded frame, by its own display matrix."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return AS_STORED
    return orientation_of(np.frombuffer(bytes(data), dtype=np.int32).astype(np.int64).reshape(3, 3))


def shown_image(frame: VideoFrame, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "height width 3"]:
    """A decoded frame as RGB, in display orientation.

    Args:
        frame: as decoded.
        size: (height, width) of the result, resampled if needed; None leaves it as it is.
    """
    shown = orientation(frame)
    if frame.format.name in PLANAR:
        frame = frame.reformat(format=PLANAR[frame.format.name])
    height, width = shown.size(frame.height, frame.width) if size is None else size
    stored = shown.size(height, width)
    if (frame.height, frame.width) == stored:
        return shown.apply(frame.to_ndarray(format="rgb24"))
    return shown.apply(frame.to_ndarray(format="rgb24", height=stored[0], width=stored[1]))
