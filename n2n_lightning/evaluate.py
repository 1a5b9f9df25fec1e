"""Score checkpoints on the same noisy images: `python -m n2n_lightning.evaluate RUN ... --data course --root DIR`.

For each run folder or checkpoint: both PSNRs, SSIM, the PSNRs after rounding to 8 bit, parameters, speed, a 95%
bootstrap interval over the images, and the paired difference to the first one.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, Parser, command, replacing


def parser() -> Parser:
    p = Parser(prog="python -m n2n_lightning.evaluate", description=__doc__.splitlines()[0])
    p.add_argument("candidates", nargs="*", metavar="RUN", help="run folders or checkpoint files")
    p.add_argument("--data", default="photos", choices=("photos", "course", "images", "pairs"), help="what to score on")
    p.add_argument("--root", help="folder of --data course or images")
    p.add_argument("--val", help="--data images: folder of the photographs to score on (the last tenth of --root)")
    p.add_argument("--noise", default="pixelate", help="corruption of photos and images, e.g. gaussian:sigma=25")
    p.add_argument("--noisy", help="--data pairs: file or folder with noisy captures, for the tuning of --classical")
    p.add_argument("--target", help="--data pairs: the second captures")
    p.add_argument("--val-noisy", help="--data pairs: the noisy images to score on")
    p.add_argument("--clean", help="--data pairs: their clean images")
    p.add_argument("--layout", default="auto", help="--data pairs: the axes of the arrays, e.g. NKHW")
    p.add_argument("--exclude", action="append", default=[], help="--data pairs: a pattern of names that are left out")
    p.add_argument("--tta", action="store_true", help="average over the 8 flips and quarter turns")
    p.add_argument("--classical", action="store_true", help="add classical filters, tuned on noisy training pairs only")
    p.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    p.add_argument("--allow", action="append", default=[], help="a module whose networks checkpoints may name")
    p.add_argument("--json", type=Path, help="write the scores here")
    p.add_argument("--csv", type=Path, help="write the scores of each image here")
    p.add_argument("--picture", type=Path, help="draw the worst and best images of the first candidate here (PNG)")
    return p


def make_data(args: Any, scale: float | None = None) -> Any:
    """The source of data that the options name, set up; `scale` is that of the checkpoints, for your own images."""
    from n2n_lightning import data as sources

    def needed(option: str) -> str:
        value = getattr(args, option.replace("-", "_"))
        if value is None:
            raise InputError(f"--data {args.data}: needs --{option}")
        return str(value)

    if args.data == "course":
        data: sources.NoisyPairs = sources.Course(needed("root"), batch_size=1)
    elif args.data == "photos":
        data = sources.Photos(make_noise(args.noise), batch_size=1)
    elif args.data == "images":
        data = sources.Images(make_noise(args.noise), needed("root"), args.val, batch_size=1)
    else:
        options = {"clean": needed("clean"), "val_noisy": args.val_noisy, "layout": args.layout, "scale": scale}
        noisy = args.noisy or needed("val-noisy")
        if args.noisy is None:  # nothing to train or tune on: the scored images stand in, and are not looked at
            options["val_noisy"], args.target = noisy, noisy
        data = sources.OwnPairs(noisy, args.target, batch_size=1, exclude=args.exclude, **options)
    data.setup("validate")
    if data.limits is not None:  # in units of white, whatever range each network is shown
        data.limits = (0.0, data.scale or 1.0)
    return data


def in_its_range(network: Any, run: Any, scale: float | None) -> Any:
    """A network that takes images in units of white, the stored value `scale`, and shows them to itself in its range.

    Args:
        network: a restore.Trained.
        run: what to call: the network, or it averaged over turns.
        scale: None where the data are in the network's range already.
    """
    if network.range is None or scale is None:
        return run
    black, span = (value / scale for value in network.range)
    return lambda images: run((images - black) / span) * span + black


def make_noise(text: str) -> Any:
    """`gaussian:sigma=25` -> Gaussian(sigma=25)."""
    from n2n_lightning import noise

    name, _, rest = text.partition(":")
    kinds = {k.__name__.lower(): k for k in noise.Noise.__subclasses__()}
    if name not in kinds:
        raise InputError(f"--noise {text}: is none of {', '.join(sorted(kinds))}")
    try:
        options = {k: json.loads(v) for k, v in (part.split("=") for part in rest.split(":") if part)}
        made: noise.Noise = kinds[name](**options)
        return made
    except (ValueError, TypeError) as error:
        raise InputError(f"--noise {text}: {error}") from None


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    heads = (
        "",
        "PSNR, mean [95%]",
        "PSNR, total",
        "SSIM",
        "8 bit: mean",
        "total",
        "against the first [95%]",
        "parameters",
        "images/s",
    )
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for name, row in rows.items():
        low, high = row["psnr_interval"]
        difference = ""
        if "difference" in row:
            difference = "{:+.2f} [{:+.2f}, {:+.2f}]".format(row["difference"], *row["difference_interval"])
        table.add_row(
            name,
            f"{row['psnr']:.2f} [{low:.2f}, {high:.2f}]",
            f"{row['psnr_total']:.2f}",
            f"{row['ssim']:.4f}",
            f"{row['psnr_uint8']:.2f}",
            f"{row['psnr_total_uint8']:.2f}",
            difference,
            f"{row['parameters']:,}" if row.get("parameters") else "",
            f"{row['images_per_second']:.0f}" if name != "noisy input" else "",
        )
    console = Console(highlight=False)
    Console(highlight=False, width=None if console.is_terminal else 150).print(table)


def extremes(found: dict[str, Any], data: Any, path: Path, count: int = 4) -> None:
    """A picture of the images with the lowest and the highest PSNR."""
    import torch

    from n2n_lightning.callbacks import draw
    from n2n_lightning.scores import pairs

    order = sorted(range(len(found["mse"])), key=lambda i: -found["mse"][i])
    chosen = list(dict.fromkeys([*order[:count], *order[-count:]]))
    everything = [(n, c) for noisy, clean in pairs(data) for n, c in zip(noisy, clean, strict=True)]
    side = min(min(everything[i][1].shape[1:]) for i in chosen)
    noisy, clean = (torch.stack([everything[i][k][..., :side, :side] for i in chosen]) for k in (0, 1))
    denoised = torch.stack([found["images"][i][..., :side, :side] for i in chosen])
    with replacing(path) as temporary:
        draw(noisy, denoised, clean).savefig(temporary)


def main() -> int:
    args = parser().parse_args()
    from n2n_lightning.restore import averaged, checkpoint_of, load
    from n2n_lightning.scores import noisy_scores, score, summarise

    failed = 0
    networks, scales = {}, set[float]()
    for candidate in dict.fromkeys(args.candidates):
        try:
            checkpoint_of(candidate)
            networks[candidate] = load(candidate, args.allow).to(args.device)
            if scale := networks[candidate].scale:
                scales.add(scale)
        except InputError as error:
            print("error:", error)
            failed = 1
    if args.candidates and not networks:
        return 2
    if args.data == "pairs" and len(scales) > 1:
        raise InputError(f"the checkpoints were trained with different data.scale: {sorted(scales)}; score them apart")
    data = make_data(args, next(iter(scales), None))
    if data.reference != "clean":
        raise InputError(f"--data {args.data}: needs --clean, the images to compare with")

    found = {"noisy input": noisy_scores(data)}
    notes: dict[str, dict[str, Any]] = {"noisy input": {}}
    if args.classical:
        from n2n_lightning.classical import classical

        for name, (run, tuned) in classical(data).items():
            label = f"{name} ({tuned})"
            found[label], notes[label] = score(run, data), {"tuned": tuned}
    for name, network in networks.items():
        run = averaged(network, network.multiple) if args.tta else network
        run = in_its_range(network, run, data.scale if data.limits else None)
        found[name] = score(run, data, args.device)
        notes[name] = {"parameters": sum(p.numel() for p in network.parameters()), "tta": args.tta}
    first = next(iter(networks), None)
    rows = {
        name: {**summarise(f, found[first] if first and name != first else None), **notes[name]}
        for name, f in found.items()
    }
    show(rows)
    if args.json:
        content = {"data": data.fingerprint, "noise": args.noise, "tta": args.tta, "scores": rows}
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if args.csv:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["image", *(f"{name} {what}" for name in found for what in ("mse", "ssim"))])
        for i in range(len(found["noisy input"]["mse"])):
            writer.writerow([i, *(f[what][i] for f in found.values() for what in ("mse", "ssim"))])
        with replacing(args.csv) as temporary:
            temporary.write_text(lines.getvalue(), encoding="utf-8")
    if args.picture:
        extremes(found[first or "noisy input"], data, args.picture)
    return failed


if __name__ == "__main__":
    command(main)
