"""Write photographs as the report's two files: `n2n prepare PHOTOS -o DIR`.

`DIR/train_data.pkl` gets noisy pairs, `DIR/val_data.pkl` noisy/clean pairs, both tuples of two
uint8 tensors (N, 3, size, size) as the course wrote them. A crop is a square of 0.8 (--smallest) to
1 times the shorter side of a photograph, uniform in its area. Each of its pixels is drawn from a
block of the photograph.
"""

from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, Parser, command, replacing
from n2n_lightning.inference.plan import refuse_inputs

# Other corruptions have values that do not fit into uint8: after clipping and rounding, their mean
# is not the clean image.
NOISES = ("pixelate",)
BATCH = 100  # images that are drawn at a time


def parser() -> Parser:
    """Return the options of the command."""
    fields = {
        "data.root": "photos",
        "data.val": "val_photos",
        "data.train_pairs": "pairs",
        "data.val_pairs": "val",
    }
    p = Parser(
        prog="n2n prepare",
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
        help="validate on every HELD-th photograph, from the first, and train on the others",
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


def read_photos(args: Any, noise: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the photographs.

    Args:
        args: the options.
        noise: the corruption.

    Returns:
        Training and validation photographs by name, uint8 (3, H, W).
    """
    import torch

    from n2n_lightning.data import Images

    source = Images(
        noise,
        str(args.photos),
        str(args.val_photos) if args.val_photos else None,
        train_pairs=args.pairs,
        val_pairs=args.val,
        size=args.size,
        held=args.held,
    )
    train, val = source.photos()
    for photos in (train, val):  # the files hold 8 bits
        for name, photo in photos.items():
            if photo.dtype == torch.uint16:
                photos[name] = (photo.float() / 257).round().to(torch.uint8)
    return train, val


def draw_pairs(
    photos: dict[str, Any], count: int, validation: bool, args: Any, noise: Any
) -> tuple[Any, Any]:
    """Draw the pairs of one file.

    Args:
        photos: uint8 (3, H, W) by name.
        count: number of pairs.
        validation: True for noisy/clean pairs, False for noisy/noisy pairs.
        args: the options.
        noise: the corruption.

    Returns:
        Two tensors, uint8 (count, 3, size, size).
    """
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
    # In random order, because training on fewer pairs takes the first ones (data.train_pairs=).
    order = torch.randperm(count, generator=torch.Generator().manual_seed(args.seed))
    first = torch.empty(count, 3, args.size, args.size, dtype=torch.uint8)
    second = torch.empty_like(first)
    title = "validation pairs" if validation else "training pairs"
    for number, images in enumerate(track(order.split(BATCH), title)):
        batch = crops[BatchIndex(int(validation), number, images)]
        target = batch["target"]
        if validation:
            target = (target * 255).round().to(torch.uint8)
        start = BATCH * number
        first[start : start + len(images)] = batch["input"]
        second[start : start + len(images)] = target
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
    train_photos, val_photos = read_photos(args, noise)
    val = draw_pairs(val_photos, args.val, True, args, noise)
    train = draw_pairs(train_photos, args.pairs, False, args, noise)
    for target, content in zip(targets, (train, val), strict=True):
        with replacing(target) as temporary:
            torch.save(content, temporary)
    noisy, clean = val
    scores = psnr_metrics("noisy")(to_float(noisy), to_float(clean))
    mean = f"{scores['noisy_psnr']:.2f} dB (mean of images)"
    total = f"{scores['noisy_psnr_total']:.2f} dB (total)"
    print(
        f"{args.out}: {args.pairs:,} training and {args.val:,} validation pairs;"
        f" noisy input {mean}, {total}"
    )
    print(f"train:  n2n train data=course data.root={args.out}")


if __name__ == "__main__":
    command(main, parser)
