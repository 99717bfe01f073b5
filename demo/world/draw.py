"""Draws a `demo.world.scene.Scene` as RGB frames with Pillow: sprites made once per scene, pasted frame by frame."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from demo.world.motion import Placement, camera_offset, placements
from demo.world.scene import BASE_PX, Scene

HUES = {"red": 0.0, "green": 0.36, "blue": 0.60, "yellow": 0.145, "purple": 0.79}
MARGIN = 0.05  # the background is drawn this much larger on each side, so that the camera can move over it
SUPERSAMPLE = 3
# A cube seen from above one edge: six corners of its outline and the near corner of its top face.
CUBE_OUTLINE = ((0.5, 0.0), (0.97, 0.22), (0.97, 0.78), (0.5, 1.0), (0.03, 0.78), (0.03, 0.22))
CUBE_NEAR = (0.5, 0.44)

Rgb = tuple[int, int, int]


def _rgb(hue: float, saturation: float, value: float) -> Rgb:
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * r), round(255 * g), round(255 * b)


def _star(size: float) -> list[tuple[float, float]]:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 0.5, 0.22) * size
    return [(size / 2 + r * np.cos(a), size / 2 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _silhouette(draw: ImageDraw.ImageDraw, shape: str, size: int, fill: int | Rgb) -> None:
    edge = size - 1
    if shape == "ball":
        draw.ellipse((0, 0, edge, edge), fill=fill)
    elif shape == "cube":
        draw.polygon([(x * size, y * size) for x, y in CUBE_OUTLINE], fill=fill)
    elif shape == "cone":
        draw.polygon([(size / 2, 0), (edge, edge), (0, edge)], fill=fill)
    elif shape == "star":
        draw.polygon(_star(size), fill=fill)
    elif shape == "cup":
        draw.polygon([(size * 0.2, 0), (size * 0.8, 0), (edge, edge), (0, edge)], fill=fill)
    else:
        raise AssertionError(f"no silhouette for {shape}")


def _solid_sprite(shape: str, hue: float, texture: str, size: int) -> Image.Image:
    """An RGBA sprite with shading, texture in the same hue, and a dark rim."""
    big = size * SUPERSAMPLE
    mask = Image.new("L", (big, big), 0)
    _silhouette(ImageDraw.Draw(mask), shape, big, 255)
    ramp = np.linspace(1.08, 0.78, big)[:, None] * np.linspace(1.05, 0.9, big)[None, :]
    base = np.asarray(_rgb(hue, 0.86, 0.88), dtype=np.float32)
    picture = Image.fromarray(np.clip(ramp[..., None] * base, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    dark = _rgb(hue, 0.92, 0.62)
    if texture == "stripes":
        for k in range(-4, 9, 2):
            draw.line((k * big / 5, 0, (k + 2) * big / 5, big), fill=dark, width=max(big // 14, 1))
    elif texture == "dots":
        for k in range(16):
            cx, cy, r = (k % 4 + 0.5) * big / 4, (k // 4 + 0.5) * big / 4, big / 22
            draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=dark)
    if shape == "cube":
        top, east, south_east, south, _, west = CUBE_OUTLINE
        for face, colour in (
            ((west, top, east, CUBE_NEAR), _rgb(hue, 0.5, 1.0)),
            ((CUBE_NEAR, east, south_east, south), _rgb(hue, 0.92, 0.55)),
        ):
            draw.polygon([(x * big, y * big) for x, y in face], fill=colour)
    if shape == "ball":
        draw.ellipse((big * 0.18, big * 0.12, big * 0.48, big * 0.42), fill=_rgb(hue, 0.3, 1.0))
    rim = Image.new("RGB", (big, big), _rgb(hue, 0.9, 0.38))
    inner = Image.new("L", (big, big), 0)
    shrunk = max(round(big * 0.93), 1)
    small = mask.resize((shrunk, shrunk))
    inner.paste(small, ((big - shrunk) // 2, (big - shrunk) // 2))
    rim.paste(picture, (0, 0), inner)
    rim.putalpha(mask)
    return rim.resize((size, size), Image.Resampling.LANCZOS)


def _lamp_sprite(hue: float, on: bool, size: int) -> Image.Image:
    big = size * SUPERSAMPLE
    out = Image.new("RGBA", (big, big), (0, 0, 0, 0))
    draw = ImageDraw.Draw(out)
    colour = (*_rgb(hue, 0.85, 0.85), 255)
    draw.ellipse((big * 0.15, big * 0.78, big * 0.85, big * 0.98), fill=colour)
    draw.rectangle((big * 0.44, big * 0.45, big * 0.56, big * 0.85), fill=(90, 90, 95, 255))
    shade = (255, 250, 190, 255) if on else (70, 66, 62, 255)
    draw.polygon(
        [(big * 0.3, 0), (big * 0.7, 0), (big * 0.95, big * 0.5), (big * 0.05, big * 0.5)], fill=shade, outline=colour
    )
    draw.line((big * 0.05, big * 0.5, big * 0.95, big * 0.5), fill=colour, width=max(big // 12, 1))
    return out.resize((size, size), Image.Resampling.LANCZOS)


def _mug_sprite(size: int) -> Image.Image:
    big = size * SUPERSAMPLE
    out = Image.new("RGBA", (big, big), (0, 0, 0, 0))
    draw = ImageDraw.Draw(out)
    draw.ellipse((big * 0.55, big * 0.25, big * 0.99, big * 0.75), outline=(235, 235, 238, 255), width=big // 10)
    draw.rounded_rectangle((0, big * 0.05, big * 0.74, big * 0.97), big // 10, fill=(238, 238, 240, 255))
    draw.ellipse((0, 0, big * 0.74, big * 0.2), fill=(110, 105, 100, 255), outline=(225, 225, 228, 255))
    return out.resize((size, size), Image.Resampling.LANCZOS)


@lru_cache(maxsize=8)
def _halo(size: int) -> Image.Image:
    yy, xx = np.mgrid[0:size, 0:size] / max(size - 1, 1) - 0.5
    alpha = np.clip(1 - 2 * np.sqrt(xx**2 + yy**2), 0, 1) ** 1.5 * 110
    glow = np.broadcast_to(np.array([255, 244, 170], dtype=np.uint8), (size, size, 3))
    rgba = np.concatenate([glow, alpha[..., None]], -1)
    return Image.fromarray(rgba.astype(np.uint8))


def _background(scene: Scene, width: int, height: int) -> Image.Image:
    """A table top of one of four textures under the scene's light, larger than the frame by MARGIN."""
    look = scene.look
    rng = np.random.default_rng(look.background_seed)
    w, h = round(width * (1 + 2 * MARGIN)), round(height * (1 + 2 * MARGIN))
    tone = rng.uniform(95, 190)
    tint = np.array([1.0, rng.uniform(0.86, 1.0), rng.uniform(0.72, 1.0)])
    yy, xx = np.mgrid[0:h, 0:w].astype(np.float32)
    coarse = Image.fromarray(rng.uniform(0, 255, (h // 16 + 2, w // 16 + 2)).astype(np.uint8))
    cloud = np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC), np.float32) / 255 - 0.5
    if look.background == 0:
        plane = tone + 14 * cloud
    elif look.background == 1:
        plane = tone + 9 * np.sin(yy / rng.uniform(3, 8) + 3 * cloud) + 10 * cloud
    elif look.background == 2:
        tile = rng.uniform(24, 44)
        plane = tone + 7 * np.sign(np.sin(xx / tile * np.pi) * np.sin(yy / tile * np.pi)) + 8 * cloud
    else:
        plane = tone + 10 * np.sin((xx + yy) / rng.uniform(6, 14)) + 8 * cloud
    light = 1 + look.gradient[0] * (xx / w - 0.5) * 2 + look.gradient[1] * (yy / h - 0.5) * 2
    rgb = (plane * light)[..., None] * tint
    out = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(out)
    for x, y, r in look.crumbs:
        grey = int(tone * 0.55)
        s = r * min(width, height) / BASE_PX
        draw.ellipse((x * w - s, y * h - 0.7 * s, x * w + s, y * h + 0.7 * s), fill=(grey, grey, grey))
    return out


class Painter:
    """Draws the frames of one scene on a canvas of `short_side` pixels (the video's own 240 by default)."""

    def __init__(self, scene: Scene, short_side: int = BASE_PX) -> None:
        self.scene = scene
        self.zoom = short_side / min(scene.width, scene.height)
        self.width = round(scene.width * self.zoom)
        self.height = round(scene.height * self.zoom)
        self._background = _background(scene, self.width, self.height)
        self._sprites: dict[tuple[str, str, int], Image.Image] = {}
        self._toys = {toy.label: toy for toy in scene.toys}
        self._noise = np.random.default_rng(scene.look.background_seed + 1)

    def frame(self, t: float) -> np.ndarray:
        """The picture at second t, uint8 [height, width, 3]."""
        scene = self.scene
        dx, dy = camera_offset(scene, t)
        left = round((MARGIN - dx) * self.width)
        top = round((MARGIN - dy) * self.height)
        canvas = self._background.crop((left, top, left + self.width, top + self.height))
        for p in placements(scene, t):
            if p.shown and not (p.hidden and p.name != "cup"):
                self._paint(canvas, p)
        return self._expose(np.asarray(canvas), t)

    def _expose(self, picture: np.ndarray, t: float) -> np.ndarray:
        look = self.scene.look
        gain = look.gain * (1 + look.flicker * np.sin(2 * np.pi * 0.6 * t + look.pan_phase))
        per_channel = (gain * np.array([1 + look.warmth, 1.0, 1 - look.warmth])).astype(np.float32)
        grain = self._noise.integers(-128, 128, picture.shape[:2], dtype=np.int8).astype(np.float32)
        grain *= np.float32(look.noise / 74.0)
        # Whole rows at once: numpy is slow along the last axis, which has three numbers.
        out = picture.reshape(len(picture), -1) * np.tile(per_channel, picture.shape[1])
        out += np.repeat(grain, 3, axis=1)
        np.clip(out, 0, 255, out=out)
        return out.astype(np.uint8).reshape(picture.shape)

    def _paint(self, canvas: Image.Image, p: Placement) -> None:
        if p.name == "hand":
            self._paint_hand(canvas, p)
            return
        size = max(round(p.w * self.width * p.scale), 2)
        if p.name == "lamp" and p.pose == "on":
            halo = _halo(round(size * 1.5))
            self._paste(canvas, halo, p.x, p.y - 0.2 * p.h)
        if p.name in self._toys:
            shadow = ImageDraw.Draw(canvas)
            cx, cy, r = p.x * self.width, (p.y + 0.5 * p.h * p.scale) * self.height, 0.5 * size
            shadow.ellipse((cx - r, cy - 0.22 * r, cx + 1.15 * r, cy + 0.25 * r), fill=(58, 54, 50))
        self._paste(canvas, self._sprite(p, size), p.x, p.y)

    def _paste(self, canvas: Image.Image, sprite: Image.Image, x: float, y: float) -> None:
        canvas.paste(
            sprite, (round(x * self.width - sprite.width / 2), round(y * self.height - sprite.height / 2)), sprite
        )

    def _sprite(self, p: Placement, size: int) -> Image.Image:
        key = (p.name if p.name != "cup" else "cup", p.pose, p.track * 1000 + size)
        if key not in self._sprites:
            self._sprites[key] = self._draw_sprite(p, size)
        return self._sprites[key]

    def _draw_sprite(self, p: Placement, size: int) -> Image.Image:
        scene = self.scene
        if p.name == "lamp":
            return _lamp_sprite(HUES[scene.lamp_colour], p.pose == "on", size)
        if p.name == "mug":
            return _mug_sprite(size)
        if p.name == "cup":
            return _solid_sprite("cup", HUES[scene.cup_colour], "plain", size)
        if scene.kind == "cups":
            return _solid_sprite("ball", HUES[scene.ball_colour], "plain", size)
        toy = scene.toys[p.track]
        return _solid_sprite(toy.shape, HUES[toy.colour] + toy.hue_shift, toy.texture, size)

    def _paint_hand(self, canvas: Image.Image, p: Placement) -> None:
        """An arm from the lower edge through the gap between two columns, and a hand in one of four poses."""
        look = self.scene.look
        draw = ImageDraw.Draw(canvas)
        w, h = self.width, self.height
        cx, cy, rx, ry = p.x * w, p.y * h, 0.5 * p.w * w, 0.5 * p.h * h
        unit = 0.5 * (rx + ry)
        if p.pose == "hold":
            draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=look.skin)
            draw.line((cx, cy, cx, -10), fill=look.sleeve, width=max(round(0.5 * rx), 2))
            return
        side = 1 if p.x < 0.5 else -1
        gap_x = (p.x + side * 0.125) * w
        slide = (1 - p.scale) * 0.5 * h
        thick = max(round(0.42 * unit), 3)
        wrist = (gap_x, min(cy + 0.35 * unit, h - 2.0) + slide)
        draw.line((gap_x, h + 10, *wrist), fill=look.sleeve, width=thick)
        if p.pose == "cover":
            draw.line((*wrist, cx, cy + slide), fill=look.skin, width=thick)
            draw.ellipse((cx - rx, cy - ry + slide, cx + rx, cy + ry + slide), fill=look.skin)
            for k in (-0.5, 0.0, 0.5):
                x = cx + k * rx
                draw.line((x, cy - 0.8 * ry + slide, x, cy - 0.1 * ry + slide), fill=look.sleeve, width=1)
        elif p.pose == "tap":
            tip = (cx, cy + slide)
            knuckle = (cx + side * 0.85 * rx, cy - 0.75 * ry + slide)
            draw.line((*wrist, *knuckle), fill=look.skin, width=thick)
            draw.line((*knuckle, *tip), fill=look.skin, width=max(round(0.75 * thick), 2))
            r = 0.55 * unit
            draw.ellipse((knuckle[0] - r, knuckle[1] - r, knuckle[0] + r, knuckle[1] + r), fill=look.skin)
        else:
            base = cy + 0.82 * ry + slide
            draw.line((*wrist, cx, base), fill=look.skin, width=thick)
            for s in (-1, 1):
                prong = cx + s * 0.86 * rx
                draw.line((cx, base, prong, base - 0.15 * ry), fill=look.skin, width=thick)
                draw.line((prong, base, prong, cy - 0.5 * ry + slide), fill=look.skin, width=max(round(0.7 * thick), 2))
