"""Decoding on a GPU, through the FFmpeg that PyAV brings: the same pictures as on processor cores.

H.264, HEVC and VP9 say bit for bit what a decoder must show, so files of these, and no others, go to the GPU. It hands
a picture over with interleaved colours (nv12), whose conversion to RGB interpolates them otherwise than that of planar
ones, by up to 50 of 255 levels: so its pictures are laid out as software decoders do first (`collect.video.display`).
What a GPU cannot decode, or has no memory for, a core does.
"""

from __future__ import annotations

import io

import av
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.error import FFmpegError
from av.video.stream import VideoStream

from collect.config import Decoder
from collect.errors import UserError

_EXACT_CODECS = ("h264", "hevc", "vp9")
"""By FFmpeg's names, those whose decoders must all show the same; others leave the inverse transform some freedom."""
_FORMATS = ("yuv420p", "yuvj420p", "yuv420p10le")
"""Pictures that a GPU hands over as one of `collect.video.display.PLANAR`."""
_FIRST_PYAV = (18, 0)
"""Earlier ones lose what marks a picture that comes from a GPU: key frame, colours, display matrix (PyAV's #2321)."""


def accelerator(decoder: Decoder, device: int | None = None, *, or_core: bool = True) -> HWAccel | None:
    """What `av.open` takes to decode there; None on processor cores.

    Args:
        decoder: where videos are decoded.
        device: number of the GPU; None takes the first.
        or_core: whether a core decodes what the GPU cannot; otherwise that is an error.
    """
    if decoder == "cpu":
        return None
    return HWAccel(decoder, device=None if device is None else str(device), allow_software_fallback=or_core)


def is_for_gpu(stream: VideoStream) -> bool:
    """Whether a GPU shows exactly what a core would show, if it can decode the stream."""
    context = stream.codec_context
    return context.codec.canonical_name in _EXACT_CODECS and context.pix_fmt in _FORMATS


def require_decoder(decoder: Decoder, device: int | None = None) -> None:
    """Check before anything is collected that videos can be decoded there.

    Raises:
        UserError: this machine, or the FFmpeg that PyAV was built with, has no such device, or PyAV is too old for it.
    """
    if decoder == "cpu":
        return
    remedy = "leave --decoder out to decode on processor cores"
    if decoder not in hwdevices_available():
        raise UserError(f"--decoder {decoder}: PyAV's FFmpeg was built without it: {remedy}.")
    if tuple(map(int, av.__version__.split(".")[:2])) < _FIRST_PYAV:
        needed = ".".join(map(str, _FIRST_PYAV))
        raise UserError(
            f"--decoder {decoder} needs PyAV {needed}, {av.__version__} is installed: upgrade it, or {remedy}."
        )
    try:
        with av.open(io.BytesIO(_clip()), "r", hwaccel=accelerator(decoder, device, or_core=False)) as container:
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
