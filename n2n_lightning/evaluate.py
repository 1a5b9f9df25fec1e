"""Score checkpoints on the same noisy images: `python -m n2n_lightning.evaluate RUN ... --data course --root DIR`.

For each run folder or checkpoint: both PSNRs, SSIM, the PSNRs after rounding to 8 bit, parameters,
speed, a 95% bootstrap interval over the images, and the paired difference to the first one. Without
clean images (--data pairs --val-noisy A --val-target B) an estimate of the total PSNR from pairs of
noisy captures.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, Parser, command, replacing, spelled
from n2n_lightning.inference.plan import refuse_inputs

OWN_DATA_OPTIONS = ("noisy", "target", "val_noisy", "val_target", "clean", "exclude")
GOES_WITH = {"photos": ("noise",), "course": ("root",), "images": ("root", "val", "noise")}
GOES_WITH["pairs"] = (*OWN_DATA_OPTIONS, "layout", "dq_good")


def parser(fields: dict[str, str] | None = None) -> Parser:
    """Return the options of the command.

    Args:
        fields: options that errors know by another name, see Parser.
    """
    p = Parser(
        prog="python -m n2n_lightning.evaluate",
        description=__doc__.splitlines()[0],
        fields=fields,
    )
    p.add_argument("candidates", nargs="*", metavar="RUN", help="run folders or checkpoint files")
    p.add_argument(
        "--data",
        choices=tuple(GOES_WITH),
        help="what to score on (photos; pairs where their files are named)",
    )
    p.add_argument("--root", help="folder of --data course or images")
    p.add_argument(
        "--val",
        help="--data images: folder of the photographs to score on (the last tenth of --root)",
    )
    p.add_argument(
        "--noise", help="corruption of photos and images, e.g. gaussian:sigma=25 (pixelate)"
    )
    p.add_argument(
        "--noisy",
        help="--data pairs: file or folder with noisy captures, for the tuning of --classical",
    )
    p.add_argument("--target", help="--data pairs: the second captures")
    p.add_argument("--val-noisy", help="--data pairs: the noisy images to score on")
    p.add_argument(
        "--val-target", help="--data pairs, without --clean: the second captures of the same scenes"
    )
    p.add_argument(
        "--clean", help="--data pairs: their clean images; without them PSNR is estimated"
    )
    p.add_argument("--layout", "--axes", help="--data pairs: the axes of the arrays, e.g. NKHW")
    p.add_argument(
        "--exclude",
        action="append",
        default=[],
        help="--data pairs: a pattern of names that are left out",
    )
    p.add_argument(
        "--dq-good",
        help="--data pairs: bits of FITS data quality flags that are harmless, as 4+8, or all",
    )
    p.add_argument("--tta", action="store_true", help="average over the 8 flips and quarter turns")
    p.add_argument(
        "--classical",
        action="store_true",
        help="add classical filters, tuned on noisy training pairs only",
    )
    p.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    p.add_argument(
        "--allow", action="append", default=[], help="a module whose networks checkpoints may name"
    )
    p.add_argument("--json", type=Path, help="write the scores here")
    p.add_argument("--csv", type=Path, help="write the scores of each image here")
    p.add_argument(
        "--fsc", type=Path, help="draw the Fourier shell correlation of the captures here (PNG)"
    )
    p.add_argument(
        "--picture",
        type=Path,
        help="draw the worst and best images of the first candidate here (PNG)",
    )
    return p


def arguments(words: Sequence[str] | None = None) -> Any:
    """The options of a command line, with what is scored on where --data does not say it.

    Raises:
        InputError: an option goes with other data.
    """
    from n2n_lightning.formats import split

    args = parser().parse_args(words)
    given = [
        name for name in {n for names in GOES_WITH.values() for n in names} if getattr(args, name)
    ]
    args.data = args.data or ("pairs" if set(given) & set(OWN_DATA_OPTIONS) else "photos")
    for name in sorted(given):
        if name not in GOES_WITH[args.data]:
            where = " or ".join(data for data, names in GOES_WITH.items() if name in names)
            raise InputError(
                f"--{name.replace('_', '-')} {getattr(args, name)}: goes with --data {where}"
            )
    own = (args.noisy, args.target, args.val_noisy, args.val_target, args.clean)
    inputs = [*args.candidates, args.root, args.val, *(split(path)[0] for path in own if path)]
    for name in ("json", "csv", "fsc", "picture"):
        if getattr(args, name):
            refuse_inputs(getattr(args, name), inputs, name)
    args.noise, args.layout = args.noise or "pixelate", args.layout or "auto"
    return args


def trained_layout(args: Any, networks: dict[str, Any]) -> str:
    """The axes of the arrays to score on: those that the option names, or those that the checkpoints were trained on.

    Returns:
        Letters, or `auto` where the arrays are of another kind, or where the checkpoints differ.
    """
    from n2n_lightning.data.file_matching import pictures
    from n2n_lightning.formats import is_one, opened

    layouts = {network.layout for network in networks.values()}
    scored = args.val_noisy or args.noisy
    if args.layout != "auto" or args.data != "pairs" or len(layouts) != 1 or not scored:
        return str(args.layout)
    (layout,) = layouts
    paths = (
        [scored]
        if is_one(Path(scored))
        else [str(path) for path in pictures(Path(scored), args.exclude, deep=True)]
    )
    if layout is None or not paths:
        return "auto"
    values = opened(paths[0]).values[0]
    return (
        layout.axes
        if layout.axes != values.axes and layout.suits(values.shape, values.axes)
        else "auto"
    )


def scored_on(args: Any, data: Any) -> str:
    """What is scored on, in words."""
    noise = f", noise {args.noise}" if "noise" in GOES_WITH[args.data] else ""
    own = f"{args.val_noisy or args.noisy} against {args.clean or args.val_target or args.target or 'one another'}"
    kinds = {"photos": "crops of embedded photographs", "pairs": own}
    return f"scored on {kinds.get(args.data, args.val or args.root)}{noise}: {len(data.val)} images"


def remarks(args: Any, candidates: Sequence[str]) -> Iterator[str]:
    """What makes a score mean less than it seems: other images than those of the training, or the very same."""
    from n2n_lightning.runs.folder import read_result

    scored = {Path(p).resolve() for p in (args.val_noisy, args.val_target) if p}
    for candidate in candidates:
        known = read_result(Path(candidate)).get("data") or {}
        trained = [str(known[side]) for side in ("noisy", "target") if known.get(side)]
        if scored & {Path(path).resolve() for path in trained}:
            yield f"{candidate} has learnt from these images: score it on others (docs/explanation/scores.md)"
        elif trained and args.data != "pairs":
            yield f"{candidate} has learnt from {trained[0]}, not from such images; --val-noisy scores on captures"


def make_data(args: Any, scale: float | None = None, dims: int | str = "auto") -> Any:
    """The source of data that the options name, set up; `scale` is that of the checkpoints, for your own images.

    `dims` are the spatial axes of what the checkpoints take.
    """
    scored = {"data.noisy": "val_noisy", "data.target": "val_target"}
    with spelled(parser(None if args.noisy else scored).spell):
        data = _source(args, scale, dims)
        data.setup("validate")
    if data.limits is not None:  # in units of white, whatever range each network is shown
        data.limits = (0.0, data.scale or 1.0)
    return data


def _source(args: Any, scale: float | None, dims: int | str) -> Any:
    from n2n_lightning import data as sources

    def needed(option: str) -> str:
        value = getattr(args, option.replace("-", "_"))
        if value is None:
            raise InputError("data", args.data, f"needs --{option}")
        return str(value)

    if args.data == "course":
        return sources.Course(needed("root"), batch_size=1)
    if args.data == "photos":
        return sources.Photos(make_noise(args.noise), batch_size=1)
    if args.data == "images":
        return sources.Images(make_noise(args.noise), needed("root"), args.val, batch_size=1)
    return _own_pairs(args, scale, dims, needed)


def _own_pairs(
    args: Any, scale: float | None, dims: int | str, needed: Callable[[str], str]
) -> Any:
    from n2n_lightning.data import PairedImages

    if args.classical and args.noisy is None:
        raise InputError(
            "classical",
            True,
            "the filters are tuned on noisy pairs of other scenes; name them with --noisy",
        )
    if args.clean is not None and args.val_target is not None:
        raise InputError(
            "val_target", args.val_target, "goes with --val-noisy, where there is no --clean"
        )
    scored = args.val_noisy if args.noisy and args.clean else needed("val-noisy")
    options = {
        "val_noisy": scored,
        "val_target": args.val_target,
        "clean": args.clean,
        "layout": args.layout,
    }
    options["dq_good"] = args.dq_good
    noisy, target = args.noisy, args.target
    # nothing to train or tune on: the scored images stand in, and are not looked at
    if noisy is None:
        noisy, target = scored, scored if args.clean else args.val_target
    return PairedImages(
        noisy, target, batch_size=1, exclude=args.exclude, scale=scale, dims=dims, **options
    )


def in_its_range(
    network: Any, run: Any, scale: float | None, unit: tuple[float, float] | None = None
) -> Any:
    """A network that takes images in units of white, the stored value `scale`, and shows them to itself in its range.

    Args:
        network: a denoiser.TrainedDenoiser.
        run: what to call: the network, or it averaged over turns.
        scale: None where the data are in the network's range already.
        unit: (factor, offset) of the data's stored values, see TrainedDenoiser.range_in.
    """
    limits = network.range_in(unit)
    if limits is None or scale is None:
        return run
    black, span = (value / scale for value in limits)
    return lambda images: run((images - black) / span) * span + black


def make_noise(text: str) -> Any:
    """`gaussian:sigma=25` -> Gaussian(sigma=25)."""
    from n2n_lightning import noise

    name, _, rest = text.partition(":")
    kinds = {k.__name__.lower(): k for k in noise.Noise.__subclasses__()}
    if name not in kinds:
        raise InputError("noise", text, f"is none of {', '.join(sorted(kinds))}")
    try:
        words = [part.partition("=") for part in rest.split(":") if part]
        if missing := [k for k, _, v in words if not v]:
            raise ValueError(f"{missing[0]} should be NAME=VALUE, as in gaussian:sigma=25")
        options = {k: json.loads(v) for k, _, v in words}
        made: noise.Noise = kinds[name](**options)
        return made
    except (ValueError, TypeError) as error:
        raise InputError("noise", text, f"{error}") from None


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    estimated = "psnr_estimate" in next(iter(rows.values()))
    scores = ("PSNR, estimated [95%]",)
    if not estimated:
        scores = ("PSNR, mean [95%]", "PSNR, total", "SSIM", "8 bit: mean", "total")  # type: ignore[assignment]
    outliers = next((row["outlier_pixels"] for row in rows.values() if "outlier_pixels" in row), 0)
    without = (f"without {outliers} outliers",) if outliers else ()
    for head in ("", *scores, *without, "against the first [95%]", "parameters", "images/s"):
        table.add_column(head, justify="right" if head else "left")
    for name, row in rows.items():
        if estimated:
            found = [_measured(row["psnr_estimate"], row["psnr_estimate_interval"], "{:.2f}")]
        else:
            found = [
                _measured(row["psnr"], row["psnr_interval"], "{:.2f}"),
                f"{row['psnr_total']:.2f}",
            ]
            found += [
                f"{row['ssim']:.4f}",
                f"{row['psnr_uint8']:.2f}",
                f"{row['psnr_total_uint8']:.2f}",
            ]
        if outliers:
            value = row.get(
                "psnr_estimate_without_outliers" if estimated else "psnr_without_outliers"
            )
            found.append("not measurable" if value is None else f"{value:.2f}")
        difference = (
            _measured(row["difference"], row["difference_interval"], "{:+.2f}")
            if "difference" in row
            else ""
        )
        parameters = f"{row['parameters']:,}" if row.get("parameters") else ""
        speed = f"{row['images_per_second']:.3g}" if name != "noisy input" else ""
        table.add_row(name, *found, difference, parameters, speed)
    console = Console(highlight=False)
    Console(highlight=False, width=None if console.is_terminal else 150).print(table)


def _measured(value: float | None, ends: Sequence[float | None] | None, form: str) -> str:
    """A number of decibels with its interval; an end that too few pixels leave open is a question mark."""
    if value is None:
        return "not measurable"
    return f"{form.format(value)} [{', '.join('?' if e is None else form.format(e) for e in ends or (None, None))}]"


def extremes(found: dict[str, Any], data: Any, path: Path, count: int = 4) -> None:
    """A picture of the images with the lowest and the highest PSNR."""
    import torch

    from n2n_lightning.metrics.scoring import validation_batches
    from n2n_lightning.training.validation_images import draw_images

    estimated = "estimates" in found
    order = sorted(range(len(found["mse"])), key=lambda i: -found["mse"][i])
    chosen = list(dict.fromkeys([*order[:count], *order[-count:]]))
    everything = [
        (n, c)
        for noisy, clean in validation_batches(data)
        for n, c in zip(noisy, clean, strict=True)
    ]
    side = min(min(everything[i][1].shape[1:]) for i in chosen)
    noisy, clean = (
        torch.stack([everything[i][k][..., :side, :side] for i in chosen]) for k in (0, 1)
    )
    denoised = torch.stack([found["images"][i][..., :side, :side] for i in chosen])
    with replacing(path) as temporary:
        errors = [found["errors"][i] for i in chosen] if estimated else None
        draw_images(noisy, denoised, clean, errors=errors).savefig(temporary)


def _candidates(
    args: Any, networks: dict[str, Any], data: Any
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """What is scored beside the noisy input: name, what denoises a batch, and notes for the row."""
    from n2n_lightning.inference.tiling import averaged, in_tiles

    if args.classical:
        from n2n_lightning.metrics.classical import classical

        for name, (run, tuned) in classical(data).items():
            yield f"{name} ({tuned})", run, {"tuned": tuned}
    for name, network in networks.items():
        run = averaged(network, network.multiple) if args.tta else network
        run = in_its_range(network, run, data.scale if data.limits else None, data.stored_unit)
        if network.dims == 3:
            run = partial(in_tiles, run)
        parameters = sum(p.numel() for p in network.parameters())
        yield name, run, {"parameters": parameters, "tta": args.tta}


def _correlate(args: Any, data: Any, runs: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    """Fourier shell correlation of the captures and of what became of them, into the picture and the rows."""
    from n2n_lightning.metrics import fsc

    found = fsc.curves(runs, data, args.device)
    frequencies = found["noisy input"].frequencies
    for name, curve in found.items():
        rows[name]["fsc"] = {"frequency": frequencies, "correlation": curve.values}
    with replacing(args.fsc) as temporary:
        fsc.draw_curves({name: curve.values for name, curve in found.items()}, frequencies).savefig(
            temporary, format="png"
        )


def _write(
    args: Any, data: Any, rows: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]
) -> None:
    """The files that were asked for."""
    if args.json:
        content = {"data": data.fingerprint, "noise": args.noise, "tta": args.tta, "scores": rows}
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if args.csv:
        columns = [
            (name, what) for name in found for what in ("mse", "ssim") if what in found[name]
        ]
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["image", *(f"{name} {what}" for name, what in columns)])
        for i in range(len(found["noisy input"]["mse"])):
            writer.writerow([i, *(found[name][what][i] for name, what in columns)])
        with replacing(args.csv) as temporary:
            temporary.write_text(lines.getvalue(), encoding="utf-8")


def main() -> int:
    args = arguments()
    from n2n_lightning.inference.checkpoint import checkpoint_of
    from n2n_lightning.inference.denoiser import load
    from n2n_lightning.metrics.scoring import noisy_scores, score_clean, score_noisy, summarise

    failed = 0
    networks, scales = {}, set[float]()
    for candidate in dict.fromkeys(args.candidates):
        try:
            checkpoint_of(candidate)
            network = load(candidate, args.allow).to(args.device)
            if network.context:
                raise InputError(
                    f"{candidate}: is for movies, which are not scored here; its result.json has"
                    " an estimate"
                )
            networks[candidate] = network
            if scale := networks[candidate].scale:
                scales.add(scale)
        except InputError as error:
            print("error:", error)
            failed = 1
    if args.candidates and not networks:
        return 2
    if args.data == "pairs" and len(scales) > 1:
        raise InputError(
            f"the checkpoints were trained with different data.scale: {sorted(scales)}; score"
            " them apart"
        )
    kinds = {network.dims for network in networks.values()}
    if len(kinds) > 1:
        raise InputError("some checkpoints are for images, some for volumes; score them apart")
    args.layout = trained_layout(args, networks)
    data = make_data(args, next(iter(scales), None), next(iter(kinds), "auto"))
    clean = data.reference == "clean"
    if args.fsc and clean:
        raise InputError(
            "fsc", args.fsc, "needs two captures, --data pairs --val-noisy A --val-target B"
        )
    if data.val is None:
        raise InputError("data", args.data, "there is nothing to score on")
    measure = score_clean if clean else score_noisy
    found = {"noisy input": noisy_scores(data) if clean else score_noisy(lambda image: image, data)}
    notes: dict[str, dict[str, Any]] = {"noisy input": {}}
    runs = {}
    for name, run, note in _candidates(args, networks, data):
        runs[name] = run
        found[name], notes[name] = measure(run, data, args.device), note
    first = next(iter(networks), None)
    rows = {
        name: {**summarise(f, found[first] if first and name != first else None), **notes[name]}
        for name, f in found.items()
    }
    if args.fsc:
        _correlate(args, data, runs, rows)
    print(scored_on(args, data))
    if scored := data.score_of:
        shown = " and ".join(f"{sigma:.3g}" for sigma in scored.get("sigmas", []))
        print(
            f"the score is that of {scored['captures']}"
            + (f" (noise of the captures: sigma {shown})" if shown else "")
        )
    for line in remarks(args, list(networks)):
        print("note:", line)
    show(rows)
    _write(args, data, rows, found)
    if args.picture:
        extremes(found[first or "noisy input"], data, args.picture)
    return failed


if __name__ == "__main__":
    command(main, parser)
