"""Picture at the head of README: a photograph and a specimen before and after denoising.

    python benchmarks/before_after.py --out docs/images/before_after.jpg

By the bundled checkpoint. Every pixel of the data is a pixel of the picture. The photograph is
scikit-image's astronaut (NASA, public domain), which the checkpoint was not trained on. The
specimen is generated; the checkpoint was trained on others of the same generator.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from n2n_lightning import load
from n2n_lightning.data.generated.specimens import specimens

HEIGHT, WIDTH = 300, 400  # of a panel: two of them fit side by side into a page of README
GAP = 8  # pixels between panels
BLACK_LEVEL = 100  # stored value of the microscope without light
GAIN = 4  # stored units per photon
PEAK = 20  # photons at white
SPECIMEN = 42  # seed of the generated specimen


def photograph() -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy and a clean photograph (H, W, 3): Gaussian noise, sigma 25 of 255."""
    clean = data.astronaut()[10 : 10 + HEIGHT, 60 : 60 + WIDTH].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    return clean + noise.astype(np.float32), clean


def specimen() -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy and a clean micrograph (H, W): photon counts over a black level, uint16."""
    picture = specimens(1, WIDTH, SPECIMEN)[0][0, :HEIGHT].numpy() / 255
    photons = np.random.default_rng(1).poisson(PEAK * picture)
    noisy = (BLACK_LEVEL + GAIN * photons).astype(np.uint16)
    return noisy, BLACK_LEVEL + GAIN * PEAK * picture


def to_8_bit(image: np.ndarray, black: float, white: float) -> Image.Image:
    """Return `image` as RGB, `black` and `white` being the ends of the grey scale."""
    scaled = (image.astype(np.float64) - black) / (white - black)
    return Image.fromarray((255 * scaled.clip(0, 1)).round().astype(np.uint8)).convert("RGB")


def psnr(image: np.ndarray, clean: np.ndarray, span: float) -> float:
    """Return the PSNR in dB of `image`, where `span` separates black from white."""
    error = np.mean((image.astype(np.float64) - clean) ** 2)
    return float(10 * np.log10(span**2 / error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = load()
    font = ImageFont.load_default(size=20)
    page = Image.new("RGB", (2 * WIDTH + GAP, 2 * HEIGHT + GAP), "white")
    draw = ImageDraw.Draw(page)
    micrograph_white = BLACK_LEVEL + GAIN * PEAK
    rows = [
        ("photograph", photograph(), 0, 255),
        ("specimen", specimen(), BLACK_LEVEL, micrograph_white),
    ]
    for row, (name, (noisy, clean), black, white) in enumerate(rows):
        denoised = model.denoise(noisy)
        top = row * (HEIGHT + GAP)
        for column, (state, image) in enumerate([("noisy", noisy), ("denoised", denoised)]):
            left = column * (WIDTH + GAP)
            page.paste(to_8_bit(image, black, white), (left, top))
            text = f"{state}  {psnr(image, clean, white - black):.1f} dB"
            corner = (left + 8, top + HEIGHT - 8)
            draw.text(corner, text, "white", font, anchor="ls", stroke_width=2, stroke_fill="black")
            print(name, text)
    page.save(args.out, quality=85)


if __name__ == "__main__":
    main()
