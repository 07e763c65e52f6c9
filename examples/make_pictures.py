"""Draws a dozen varied pictures, so that the demo has real files to work on and nothing to download."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import cos, pi, sin
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

Picture = Image.Image
Colour = tuple[int, int, int]


def draw_all(folder: Path) -> list[Path]:
    """Draw every picture of `PICTURES` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (size, draw) in PICTURES.items():
        path = folder / name
        draw(size, random.Random(name)).save(path)  # noqa: S311 - looks, not secrets
        paths.append(path)
    return paths


def _colour(rng: random.Random, low: int = 40, high: int = 255) -> Colour:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _shade(grey: Picture, size: tuple[int, int], dark: Colour, light: Colour) -> Picture:
    """A grey picture in two colours."""
    return ImageOps.colorize(grey.resize(size, Image.Resampling.BICUBIC), dark, light)


def sunset(size: tuple[int, int], rng: random.Random) -> Picture:
    width, height = size
    sky = _shade(Image.linear_gradient("L"), size, (30, 20, 70), (255, 150, 60))
    draw = ImageDraw.Draw(sky)
    radius, x, y = height // 7, width * 2 // 3, height * 2 // 3
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 230, 150))
    for depth in range(4):
        base = height * (66 + 8 * depth) // 100
        ridge = [(x, base - rng.randint(0, height // 9)) for x in range(0, width + 40, 40)]
        draw.polygon([(0, height), *ridge, (width, height)], fill=(60 - 13 * depth, 40 - 9 * depth, 70 - 14 * depth))
    return sky


def night(size: tuple[int, int], rng: random.Random) -> Picture:
    sky = _shade(Image.radial_gradient("L"), size, (40, 40, 110), (4, 4, 20))
    draw = ImageDraw.Draw(sky)
    for _ in range(900):
        x, y, r = rng.randrange(size[0]), rng.randrange(size[1]), rng.choice((0, 0, 0, 1, 1, 2))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(rng, 170))
    return sky


def bubbles(size: tuple[int, int], rng: random.Random) -> Picture:
    picture = Image.new("RGB", size, (245, 240, 230))
    for _ in range(60):
        layer = Image.new("RGB", size, (255, 255, 255))
        r, x, y = rng.randint(15, size[1] // 6), rng.randrange(size[0]), rng.randrange(size[1])
        ImageDraw.Draw(layer).ellipse((x - r, y - r, x + r, y + r), fill=_colour(rng, 150))
        picture = ImageChops.multiply(picture, layer)
    return picture


def fractal(size: tuple[int, int], rng: random.Random) -> Picture:
    grey = Image.effect_mandelbrot(size, (-2.0, -1.2, 1.0, 1.2), 90)
    return ImageOps.colorize(grey, _colour(rng, 0, 60), (255, 240, 200), _colour(rng, 120), midpoint=90)


def clouds(size: tuple[int, int], rng: random.Random) -> Picture:
    grey = Image.new("L", size)
    for octave in range(1, 7):
        small = Image.new("L", (2**octave, 2**octave))
        small.putdata([rng.randrange(256) for _ in range(4**octave)])
        grey = Image.blend(grey, small.resize(size, Image.Resampling.BICUBIC), 0.62 if octave == 1 else 0.4)
    return ImageOps.colorize(ImageOps.autocontrast(grey), (60, 110, 200), (255, 255, 255))


def mosaic(size: tuple[int, int], rng: random.Random) -> Picture:
    small = Image.new("RGB", (size[0] // 32, size[1] // 32))
    small.putdata([_colour(rng) for _ in range(small.width * small.height)])
    return small.resize(size, Image.Resampling.NEAREST)


def spiral(size: tuple[int, int], rng: random.Random) -> Picture:
    picture = Image.new("RGB", size, (20, 24, 30))
    draw = ImageDraw.Draw(picture)
    for step in range(700):
        angle, far = step * pi * (3 - 5**0.5), 0.019 * min(size) * step**0.5
        x, y, r = size[0] / 2 + far * cos(angle), size[1] / 2 + far * sin(angle), 2 + step // 120
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(rng, 120))
    return picture


def chart(size: tuple[int, int], rng: random.Random) -> Picture:
    width, height = size
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for line in range(1, 8):
        draw.line((0, height * line // 8, width, height * line // 8), fill=(225, 225, 225))
    for bar in range(12):
        top, left = rng.randint(height // 8, height * 7 // 8), width * (2 * bar + 1) // 26
        draw.rectangle((left, top, left + width // 20, height - 10), fill=_colour(rng))
    return picture


def marble(size: tuple[int, int], rng: random.Random) -> Picture:
    noise = Image.effect_noise((size[0] // 8, size[1] // 8), 90).resize(size, Image.Resampling.BICUBIC)
    return ImageOps.colorize(noise.filter(ImageFilter.CONTOUR), _colour(rng, 0, 80), (240, 235, 225))


def web(size: tuple[int, int], rng: random.Random) -> Picture:
    picture = Image.new("RGB", size, _colour(rng, 0, 40))
    draw = ImageDraw.Draw(picture)
    for step in range(0, 101, 4):
        x, y = size[0] * step // 100, size[1] * step // 100
        draw.line((x, 0, size[0], y), fill=(255, 180, 90), width=2)
        draw.line((0, y, x, size[1]), fill=(120, 200, 255), width=2)
    return picture


def stamp(size: tuple[int, int], rng: random.Random) -> Picture:
    picture = Image.new("RGB", size, (250, 245, 235))
    draw = ImageDraw.Draw(picture)
    for ring in range(6):
        inset = 8 + ring * min(size) // 14
        draw.rounded_rectangle((inset, inset, size[0] - inset, size[1] - inset), 24, outline=_colour(rng, 0), width=6)
    draw.text((size[0] / 2, size[1] / 2), "TREADLE", fill=(30, 30, 30), anchor="mm", font_size=size[1] / 9)
    return picture


def paper(size: tuple[int, int], rng: random.Random) -> Picture:
    grain = Image.effect_noise(size, 35)
    return ImageOps.colorize(grain, _colour(rng, 90, 150), (255, 250, 240))


PICTURES: dict[str, tuple[tuple[int, int], Callable[[tuple[int, int], random.Random], Picture]]] = {
    "sunset.jpg": ((1600, 1000), sunset),
    "night.png": ((960, 720), night),
    "bubbles.jpg": ((800, 600), bubbles),
    "fractal.png": ((720, 540), fractal),
    "clouds.jpg": ((1280, 960), clouds),
    "mosaic.webp": ((1024, 1024), mosaic),
    "spiral.png": ((900, 900), spiral),
    "chart.gif": ((640, 400), chart),
    "marble.jpg": ((1200, 800), marble),
    "web.png": ((600, 1200), web),
    "stamp.bmp": ((420, 300), stamp),
    "paper.jpg": ((1000, 1500), paper),
}
