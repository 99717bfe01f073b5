"""Decoding on a GPU, through the FFmpeg that PyAV brings: the same pictures as on processor cores.

H.264, HEVC, VP9 and AV1 say bit for bit what a decoder must show. A GPU hands it over with interleaved colours (nv12),
whose conversion to RGB interpolates them otherwise than that of planar ones, by up to 50 of 255 levels: so its pictures
are laid out as software decoders do first (`collect.video.display`). What a GPU cannot decode, a core does.
"""

from __future__ import annotations

import io

import av
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.error import FFmpegError

from collect.config import Decoder
from collect.errors import UserError


def accelerator(decoder: Decoder, device: int | None = None) -> HWAccel | None:
    """What `av.open` takes to decode there; None on processor cores.

    Args:
        decoder: where videos are decoded.
        device: number of the GPU; None takes the first.
    """
    if decoder == "cpu":
        return None
    return HWAccel(decoder, device=None if device is None else str(device), allow_software_fallback=True)


def require_decoder(decoder: Decoder, device: int | None = None) -> None:
    """Check before anything is collected that videos can be decoded there.

    Raises:
        UserError: this machine, or the FFmpeg that PyAV was built with, has no such device.
    """
    if decoder == "cpu":
        return
    remedy = "leave --decoder out to decode on processor cores"
    if decoder not in hwdevices_available():
        raise UserError(f"--decoder {decoder}: PyAV's FFmpeg was built without it: {remedy}.")
    try:
        with av.open(io.BytesIO(_clip()), "r", hwaccel=accelerator(decoder, device)) as container:
            next(container.decode(video=0))
    except FFmpegError as error:
        raise UserError(
            f"--decoder {decoder}: no GPU that decodes videos can be reached ({error.strerror or error}): {remedy}, or "
            "look whether nvidia-smi shows one and the driver's libnvcuvid is installed (in containers: "
            "NVIDIA_DRIVER_CAPABILITIES=compute,video,utility)."
        ) from None


def _clip() -> bytes:
    """A small H.264 video, to try a decoder with."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 128, 128, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((128, 128, 3), dtype=np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
