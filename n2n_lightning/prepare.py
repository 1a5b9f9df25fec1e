"""Write a folder of photographs as the report's two files: `python -m n2n_lightning.prepare PHOTOS -o DIR`.

`DIR/train_data.pkl` gets noisy pairs, `DIR/val_data.pkl` noisy/clean pairs, both tuples of two
uint8 tensors (N, 3, size, size) as the course wrote them. A crop is a square of 0.8 (--smallest) to
1 times the shorter side of a photograph, uniform in its area, and each pixel is drawn from the
block of it that it stands for.
"""

from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, Parser, command, replacing
from n2n_lightning.inference.plan import refuse_inputs

# Other corruptions have values that uint8 cannot hold: clipped and rounded their mean is no longer
# the clean image.
NOISES = ("pixelate",)


def parser() -> Parser:
    """The options of the command."""
    fields = {
        "data.root": "photos",
        "data.val": "val_photos",
        "data.train_pairs": "pairs",
        "data.val_pairs": "val",
    }
    p = Parser(
        prog="python -m n2n_lightning.prepare",
        description=__doc__.splitlines()[0],
        fields=fields,
    )
    p.add_argument("photos", type=Path, help="folder of photographs to train on")
    p.add_argument("-o", "--out", type=Path, required=True, help="folder for the two files")
    p.add_argument(
        "--val-photos",
        type=Path,
        help="folder of photographs to validate on (last tenth of the others)",
    )
    p.add_argument(
        "--held",
        type=int,
        help="validate on every so many-th photograph, from the first, and train on others",
    )
    p.add_argument(
        "--smallest",
        type=float,
        default=0.8,
        help="smallest crop, as a share of the shorter side (0.8)",
    )
    p.add_argument(
        "--noise", default="pixelate", help="the corruption; only pixelate fits into uint8"
    )
    p.add_argument("--block", type=int, default=7, help="block of pixelate, in pixels (7)")
    p.add_argument("--pairs", type=int, default=50_000, help="training pairs (50000)")
    p.add_argument("--val", type=int, default=1000, help="validation pairs (1000)")
    p.add_argument("--size", type=int, default=32, help="height and width of the images (32)")
    p.add_argument("--seed", type=int, default=559, help="of crops and noise (559)")
    p.add_argument("--overwrite", action="store_true", help="replace files that are there")
    return p


def read(args: Any, noise: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Training and validation photographs by name, uint8 (3, H, W)."""
    import torch

    from n2n_lightning.data import Images

    val_photos = str(args.val_photos) if args.val_photos else None
    options = {
        "train_pairs": args.pairs,
        "val_pairs": args.val,
        "size": args.size,
        "held": args.held,
    }
    found = Images(noise, str(args.photos), val_photos, **options).photos()
    for photos in found:  # the files hold 8 bits
        for name, photo in photos.items():
            if photo.dtype == torch.uint16:
                photos[name] = (photo.float() / 257).round().to(torch.uint8)
    return found


def pairs(
    photos: dict[str, Any], count: int, validation: bool, args: Any, noise: Any
) -> tuple[Any, Any]:
    """The two tensors of a file, uint8 (count, 3, size, size): two noisy images, or a noisy and a clean one."""
    import torch
    from rich.progress import track

    from n2n_lightning.data import BatchIndex
    from n2n_lightning.data.datasets import Crops

    crops = Crops(
        list(photos.values()),
        count,
        args.size,
        noise,
        args.seed,
        (args.smallest, 1.0),
        validation,
        area=True,
    )
    # In a random order, as the first so many are a subset of their own (data.train_pairs=).
    order = torch.randperm(count, generator=torch.Generator().manual_seed(args.seed))
    first, second = (
        torch.empty(count, 3, args.size, args.size, dtype=torch.uint8) for _ in range(2)
    )
    for number, images in enumerate(
        track(order.split(100), "validation pairs" if validation else "training pairs")
    ):
        batch = crops[BatchIndex(int(validation), number, images)]
        where = slice(100 * number, 100 * number + len(images))
        first[where] = batch["input"]
        second[where] = (
            (batch["target"] * 255).round().to(torch.uint8) if validation else batch["target"]
        )
    return first, second


def main() -> None:
    args = parser().parse_args()
    if args.noise not in NOISES:
        raise InputError(
            "noise",
            args.noise,
            "its values do not fit into uint8 without clipping, which biases them; train with"
            f" data=images noise={args.noise} instead",
        )
    targets = [args.out / "train_data.pkl", args.out / "val_data.pkl"]
    for target in targets:
        refuse_inputs(target, [args.photos, args.val_photos])
        if target.exists() and not args.overwrite:
            raise InputError(f"{target}: exists; --overwrite replaces it")

    import torch

    from n2n_lightning.data.augmentation import to_float
    from n2n_lightning.metrics.psnr_over_batches import psnr_metrics
    from n2n_lightning.noise import Pixelate

    noise = Pixelate(args.block)
    train, val = read(args, noise)
    scored = pairs(val, args.val, True, args, noise)
    for target, content in zip(
        targets, (pairs(train, args.pairs, False, args, noise), scored), strict=True
    ):
        with replacing(target) as temporary:
            torch.save(content, temporary)
    scores = psnr_metrics("noisy")(*(to_float(images) for images in scored))
    print(
        f"{args.out}: {args.pairs:,} training and {args.val:,} validation pairs; noisy input"
        f" {scores['noisy_psnr']:.2f} dB (mean of images), {scores['noisy_psnr_total']:.2f} dB"
        " (total)"
    )
    print(f"train:  python -m n2n_lightning.train data=course data.root={args.out}")


if __name__ == "__main__":
    command(main, parser)
