"""Score runs on the same images: `n2n evaluate RUN --data course --root DIR`.

For each run folder or checkpoint: both PSNRs, SSIM, the PSNRs after rounding to 8 bit, parameters,
speed, a 95% bootstrap interval over the images, and the paired difference to the first one. Without
clean images (--data pairs --val-noisy A --val-target B) an estimate of the total PSNR from pairs of
noisy captures.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning.config.overrides import quote
from n2n_lightning.files import InputError, Parser, command, option, spelled
from n2n_lightning.inference.plan import refuse_inputs
from n2n_lightning.reporting import evaluation_table
from n2n_lightning.reporting.evaluation_table import NOISY_INPUT

if TYPE_CHECKING:
    from n2n_lightning.inference.certificates import FileCertificate
    from n2n_lightning.reporting.movie_scores import MovieScores

PAIRS_OPTIONS = ("noisy", "target", "val_noisy", "val_target", "clean", "exclude")
GOES_WITH = {"photos": ("noise",), "course": ("root",), "images": ("root", "val", "noise")}
GOES_WITH["pairs"] = (*PAIRS_OPTIONS, "layout", "dq_good", "regions")
GOES_WITH["movie"] = ("noisy", "clean", "exclude", "layout", "dq_good", "regions", "out")
# Keys of a source whose values for scoring differ from those for training in conf/data/.
SCORING_VALUES: dict[str, dict[str, Any]] = {
    "photos": {"train_pairs": 4000},
    "images": {"size": 32},
}


def parser(fields: dict[str, str] | None = None) -> Parser:
    """Return the options of the command.

    Args:
        fields: options that errors know by another name, see Parser.
    """
    p = Parser(
        prog="n2n evaluate",
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
        help="--data movie: the movie; --data pairs: noisy captures, for the tuning of --classical",
    )
    p.add_argument("--target", help="--data pairs: the second captures")
    p.add_argument("--val-noisy", help="--data pairs: the noisy images to score on")
    p.add_argument(
        "--val-target", help="--data pairs, without --clean: the second captures of the same scenes"
    )
    p.add_argument(
        "--clean", help="pairs, movie: their clean images; without them PSNR is estimated"
    )
    p.add_argument(
        "--regions",
        help="--data movie: label image whose regions are followed over time (the most active"
        " squares); with --certify: whose sums are compared",
    )
    p.add_argument(
        "--out", type=Path, help="--data movie: folder for regions.csv, their means over time"
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
    p.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one"
    )
    p.add_argument(
        "--allow", action="append", default=[], help="a module whose networks checkpoints may name"
    )
    p.add_argument("--json", type=Path, help="write the scores here")
    p.add_argument("--csv", type=Path, help="write the scores of each image here")
    p.add_argument(
        "--fsc", type=Path, help="draw the Fourier shell correlation of the captures here (PNG)"
    )
    p.add_argument(
        "--certify",
        type=Path,
        help="pairs, movie: write which values of the results hold here (JSON), with a page"
        " (docs/explanation/certificate.md)",
    )
    p.add_argument("--tolerance", type=float, help="with --certify: allowed difference (0.02)")
    p.add_argument(
        "--picture",
        type=Path,
        help="draw the worst and best images of the first candidate here (PNG)",
    )
    return p


def arguments(words: Sequence[str] | None = None) -> Any:
    """Read the options of a command line; without --data, choose it by the other options.

    Args:
        words: the command line; None for that of this process.

    Returns:
        The options.

    Raises:
        InputError: an option belongs to another --data, or names an input as an output.
    """
    args = parser().parse_args(words)
    names = {name for names in GOES_WITH.values() for name in names}
    given = sorted(name for name in names if getattr(args, name))
    if args.data is None:
        args.data = "pairs" if set(given) & set(PAIRS_OPTIONS) else "photos"
    for name in given:
        if name not in GOES_WITH[args.data]:
            sources = [data for data, names in GOES_WITH.items() if name in names]
            reason = f"goes with --data {' or '.join(sources)}"
            raise InputError(name, getattr(args, name), reason)
    _refuse_outputs(args)
    args.noise, args.layout = args.noise or "pixelate", args.layout or "auto"
    return args


def _refuse_outputs(args: Any) -> None:
    from n2n_lightning.formats import split

    own = (args.noisy, args.target, args.val_noisy, args.val_target, args.clean)
    files = [split(path)[0] for path in own if path]
    inputs = [*args.candidates, args.root, args.val, *files]
    for name in ("json", "csv", "fsc", "picture", "certify"):
        output = getattr(args, name)
        if output:
            refuse_inputs(output, inputs, name)


def load_networks(args: Any) -> tuple[dict[str, Any], int]:
    """Load the checkpoints; an error of one is printed, and the others go on.

    Returns:
        The networks (denoiser.TrainedDenoiser) by what was typed, and the exit status: 1 where one
        could not be loaded.
    """
    from n2n_lightning.devices.choice import device_of
    from n2n_lightning.inference.checkpoint import checkpoint_of
    from n2n_lightning.inference.denoiser import load
    from n2n_lightning.inference.device import move_to_device

    args.device = device_of(args.device)
    networks: dict[str, Any] = {}
    failed = 0
    movie = args.data == "movie"
    for candidate in dict.fromkeys(args.candidates):
        try:
            checkpoint_of(candidate)
            network = load(candidate, args.allow, device="cpu")
            move_to_device(network, args.device, fast=False)
            if network.context and not movie:
                raise InputError(
                    f"{candidate}: is for movies; --data movie --noisy MOVIE scores it on one"
                )
            networks[candidate] = network
        except InputError as error:
            print("error:", error)
            failed = 1
    return networks, failed


def shared_units(args: Any, networks: dict[str, Any]) -> tuple[float | None, int | str]:
    """Return what all networks have in common: the stored value of white and the spatial axes.

    Args:
        args: the options.
        networks: see `load_networks`.

    Returns:
        `data.scale` of the training, None where no checkpoint has one; 2 or 3 axes, or `auto`.

    Raises:
        InputError: the networks differ, so their scores could not be compared.
    """
    scales = {network.scale for network in networks.values() if network.scale}
    if args.data in ("pairs", "movie") and len(scales) > 1:
        raise InputError(
            f"the checkpoints were trained with different data.scale: {sorted(scales)}; score"
            " them apart"
        )
    dims = {network.dims for network in networks.values()}
    if len(dims) > 1:
        raise InputError("some checkpoints are for images, some for volumes; score them apart")
    return next(iter(scales), None), next(iter(dims), "auto")


def trained_layout(args: Any, networks: dict[str, Any]) -> str:
    """Return the axes of the arrays to score on: those of the option, or those of the training.

    Args:
        args: the options.
        networks: see `load_networks`.

    Returns:
        Letters, or `auto` where the arrays are of another kind, or where the checkpoints differ.
    """
    from n2n_lightning.data.file_matching import pictures
    from n2n_lightning.formats import is_one, opened

    layouts = {network.layout for network in networks.values()}
    scored = args.val_noisy or args.noisy
    own = args.data in ("pairs", "movie")
    if args.layout != "auto" or not own or len(layouts) != 1 or not scored:
        return str(args.layout)
    layout = layouts.pop()
    paths = [Path(scored)]
    if not is_one(paths[0]):
        paths = pictures(paths[0], args.exclude, deep=True)
    if layout is None or not paths:
        return "auto"
    values = opened(str(paths[0])).values[0]
    if layout.axes == values.axes or not layout.suits(values.shape, values.axes):
        return "auto"
    return str(layout.axes)


def scored_on(args: Any, data: Any) -> str:
    """Return the line that names the images and how many they are.

    Args:
        args: the options.
        data: the source of the images, set up.
    """
    place = args.val or args.root
    if args.data == "photos":
        place = "crops of embedded photographs"
    if args.data == "pairs":
        reference = args.clean or args.val_target or args.target or "one another"
        place = f"{args.val_noisy or args.noisy} against {reference}"
    noise = f", noise {args.noise}" if "noise" in GOES_WITH[args.data] else ""
    return f"scored on {place}{noise}: {len(data.val)} images"


def remarks(args: Any, candidates: Sequence[str]) -> Iterator[str]:
    """Find checkpoints whose scores mislead: trained on these images, or on another kind.

    Args:
        args: the options.
        candidates: run folders.

    Yields:
        A line for each of them.
    """
    from n2n_lightning.runs.folder import read_result

    scored = {Path(path).resolve() for path in (args.val_noisy, args.val_target) if path}
    for candidate in candidates:
        known = read_result(Path(candidate)).get("data") or {}
        trained = [str(known[side]) for side in ("noisy", "target") if known.get(side)]
        if scored & {Path(path).resolve() for path in trained}:
            yield (
                f"{candidate} has learnt from these images: score it on others"
                " (docs/explanation/scores.md)"
            )
        elif trained and args.data not in ("pairs", "movie"):
            yield (
                f"{candidate} has learnt from {trained[0]}, not from such images; --val-noisy"
                " scores on captures"
            )


def make_data(args: Any, scale: float | None = None, dims: int | str = "auto") -> Any:
    """Construct the source of the images by the configuration of training, and read them.

    Args:
        args: the options.
        scale: the stored value that is white for the checkpoints; None where it is unknown.
        dims: the spatial axes that the checkpoints take, 2 or 3, or `auto`.

    Returns:
        The data source, set up for validation, in units of white.

    Raises:
        InputError: the options or the images cannot work.
    """
    from n2n_lightning.config.data_source import build_data_source, noise_overrides

    overrides = [f"data={args.data}", "data.batch_size=1", *_data_overrides(args, scale)]
    if "noise" in GOES_WITH[args.data]:
        overrides += noise_overrides(args.noise)
    # Without training captures the scored ones stand in for them.
    scored = {"data.noisy": "val_noisy", "data.target": "val_target"}
    with spelled(parser(None if args.noisy else scored).spell):
        try:
            data = build_data_source(overrides, dims)
        except InputError as error:
            line = str(error).partition("; +noise.")[0]
            if line.startswith("noise."):
                raise InputError("noise", args.noise, line) from None
            raise
        data.setup("validate")
    if data.limits is not None:  # in units of white, whatever range each network is shown
        data.limits = (0.0, data.scale or 1.0)
    return data


def _data_overrides(args: Any, scale: float | None) -> list[str]:
    """Return the keys of conf/data/ that the options set, in Hydra's grammar."""
    values: dict[str, Any] = dict(SCORING_VALUES.get(args.data, {}))
    if args.data in ("course", "images"):
        values |= {"root": _needed(args, "root"), "val": args.val}
    if args.data == "pairs":
        values |= _pairs_values(args) | {"scale": scale}
    if args.data == "movie":
        same = ("layout", "dq_good", "exclude")
        values |= {"noisy": _needed(args, "noisy"), "scale": scale}
        # with a context a single frame can be chosen; each network is shown as many as it takes
        values |= {"context": "auto", "blind": "frame"}
        values["align"] = getattr(args, "align", None)
        values |= {name: getattr(args, name) for name in same}
    words = []
    for name, value in values.items():
        if isinstance(value, str):
            words.append(f"data.{name}={quote(value)}")
        elif isinstance(value, list):
            words.append(f"data.{name}=[{','.join(quote(part) for part in value)}]")
        elif value is not None:
            words.append(f"data.{name}={value}")
    return words


def _needed(args: Any, name: str) -> str:
    value = getattr(args, name)
    if value is None:
        raise InputError("data", args.data, f"needs {option(name)}")
    return str(value)


def _pairs_values(args: Any) -> dict[str, Any]:
    """Return the values of conf/data/pairs.yaml that the options set."""
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
    scored = args.val_noisy
    if not (args.noisy and args.clean):
        scored = _needed(args, "val_noisy")
    noisy, target = args.noisy, args.target
    # nothing to train or tune on: the scored images stand in, and are not looked at
    if noisy is None:
        noisy, target = scored, scored if args.clean else args.val_target
    named = {"noisy": noisy, "target": target, "val_noisy": scored}
    same = ("val_target", "clean", "layout", "dq_good", "exclude")
    return named | {name: getattr(args, name) for name in same}


def in_its_range(
    network: Any, run: Any, scale: float | None, unit: tuple[float, float] | None = None
) -> Any:
    """Let a network that was trained on its own intensity range take images in units of white.

    Args:
        network: a denoiser.TrainedDenoiser.
        run: what to call: the network, or its average over turns.
        scale: the stored value that is white; None where the data are in the network's range.
        unit: (factor, offset) of the data's stored values, see TrainedDenoiser.range_in.

    Returns:
        A function of a batch, in units of white, to its denoised images.
    """
    limits = network.range_in(unit)
    if limits is None or scale is None:
        return run
    black, span = (value / scale for value in limits)
    return lambda images: run((images - black) / span) * span + black


def _candidates(
    args: Any, networks: dict[str, Any], data: Any
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield the name of each candidate, a function that denoises a batch, and notes for its row."""
    from n2n_lightning.inference.tiling import averaged, in_memory, in_tiles

    if args.classical:
        from n2n_lightning.metrics.classical import classical

        for name, (run, tuned) in classical(data).items():
            yield f"{name} ({tuned})", run, {"tuned": tuned}
    for name, network in networks.items():
        run = averaged(network, network.multiple) if args.tta else network
        run = in_memory(run, network.overlap, network.multiple)
        run = partial(_on_device, run, args.device)
        run = in_its_range(network, run, data.scale if data.limits else None, data.stored_unit)
        if network.dims == 3:
            run = partial(in_tiles, run)
        parameters = sum(p.numel() for p in network.parameters())
        yield name, run, {"parameters": parameters, "tta": args.tta}


def _on_device(run: Any, device: str, images: Any) -> Any:
    """Denoise a batch of the CPU on a device."""
    return run(images.to(device)).cpu()


def _describe(args: Any, data: Any, networks: dict[str, Any]) -> None:
    """Print what is scored, and what makes scores mean less than they seem."""
    print(scored_on(args, data))
    if data.score_of:
        sigmas = [f"{sigma:.3g}" for sigma in data.score_of.get("sigmas", [])]
        noise = f" (noise of the captures: sigma {' and '.join(sigmas)})" if sigmas else ""
        print(f"the score is that of {data.score_of['captures']}{noise}")
    for line in remarks(args, list(networks)):
        print("note:", line)


def _score_movie(args: Any, networks: dict[str, Any], scale: float | None, dims: int | str) -> int:
    """Score the networks on a movie, and write the means of its regions.

    Args:
        args, networks: see `main`.
        scale, dims: see `make_data`.

    Returns:
        The exit status.
    """
    from n2n_lightning.reporting.movie_scores import MovieScores, read_clean, read_labels

    for name in ("classical", "fsc", "csv", "picture"):
        if getattr(args, name):
            raise InputError(name, getattr(args, name), "does not go with --data movie")
    tolerance = _tolerance_of_certificates(args)
    args.layout = trained_layout(args, networks)
    if any(network.align for network in networks.values()):
        args.align = True
    data = make_data(args, scale, dims)
    clean = read_clean(args.clean, data) if args.clean else None
    labels = read_labels(args.regions) if args.regions else None
    if len(data.movies) > 1:
        raise InputError("noisy", args.noisy, "holds several movies; score them one by one")
    scores = MovieScores(data, 0, clean, labels)
    for name, run, note in _candidates(args, networks, data):
        network = networks[name]
        scores.add(name, run, network.context, network.sees_middle, network.align)
        scores.rows[name] |= note
    print(f"scored on {args.noisy}")
    for line in data.notes:
        print("note:", line)
    for line in remarks(args, list(networks)):
        print("note:", line)
    _show_scores(scores)
    if args.certify:
        certificates = scores.certificates(tolerance)
        _report_certificates(args.certify, certificates)
    if args.out:
        scores.write(args.out)
    if args.json:
        content = {"data": data.fingerprint, "tta": args.tta, "scores": scores.rows}
        content["regions"] = scores.differences()
        evaluation_table.write_json(args.json, content)
    return 0


def _show_scores(scores: "MovieScores") -> None:
    """Print the table of a movie, scores against the clean movie, and lines about regions."""
    evaluation_table.show(scores.rows)
    for name, row in scores.rows.items():
        psnr = row.get("psnr")
        if psnr is None:
            continue
        worst = row["psnr_worst_frame"]
        print(f"{name}, against --clean: PSNR {psnr:.2f} dB, {worst:.2f} dB in the worst frame")
    for line in scores.lines():
        print(line)


def _options_of_certificates(args: Any, clean: bool) -> Any:
    """Return the options of certificates; None where none are asked for."""
    from n2n_lightning.inference.certificates import CertifyOptions
    from n2n_lightning.reporting.movie_scores import read_labels

    tolerance = _tolerance_of_certificates(args)
    if args.regions and not args.certify:
        raise InputError("regions", args.regions, "goes with --certify")
    if not args.certify:
        return None
    if clean:
        raise InputError(
            "certify", args.certify, "needs two captures, --data pairs --val-noisy A --val-target B"
        )
    return CertifyOptions(tolerance, read_labels(args.regions) if args.regions else None)


def _tolerance_of_certificates(args: Any) -> float:
    """Return the difference that is allowed; raise InputError where it cannot be."""
    from n2n_lightning.metrics.certificate import ALLOWED_DIFFERENCE

    if args.tolerance and not args.certify:
        raise InputError("tolerance", args.tolerance, "goes with --certify")
    tolerance = float(args.tolerance or ALLOWED_DIFFERENCE)
    if not 0 < tolerance < 1:
        raise InputError("tolerance", args.tolerance, "must be between 0 and 1")
    return tolerance


def _report_certificates(path: Path, files: "Sequence[FileCertificate]") -> None:
    """Write the certificates of the candidates, and print a line for each."""
    from n2n_lightning.inference.certificates import write_certificate_file
    from n2n_lightning.reporting.certificate_page import write_certificates

    write_certificate_file(path, files)
    page = path.with_suffix(".html")
    write_certificates(page, files)
    for file in files:
        print(f"{file.source}: {file.summary()}")
    print(f"{page}: which values hold")


def main() -> int:
    args = arguments()
    from n2n_lightning.metrics.fsc import curves
    from n2n_lightning.metrics.scoring import noisy_scores, score_clean, score_noisy, summarise

    networks, failed = load_networks(args)
    if args.candidates and not networks:
        return 2
    scale, dims = shared_units(args, networks)
    if args.data == "movie":
        return _score_movie(args, networks, scale, dims) or failed
    args.layout = trained_layout(args, networks)
    data = make_data(args, scale, dims)
    clean = data.reference == "clean"
    if args.fsc and clean:
        raise InputError(
            "fsc", args.fsc, "needs two captures, --data pairs --val-noisy A --val-target B"
        )
    if data.val is None:
        raise InputError("data", args.data, "there is nothing to score on")
    certify_options = _options_of_certificates(args, clean)
    measure = score_clean if clean else score_noisy
    found = {NOISY_INPUT: noisy_scores(data) if clean else score_noisy(lambda image: image, data)}
    notes: dict[str, dict[str, Any]] = {NOISY_INPUT: {}}
    runs = {}
    for name, run, note in _candidates(args, networks, data):
        runs[name], notes[name] = run, note
        found[name] = measure(run, data)
    first = next(iter(networks), None)
    rows = {}
    for name, measured in found.items():
        reference = found[first] if first and name != first else None
        rows[name] = {**summarise(measured, reference), **notes[name]}
    if args.fsc:
        evaluation_table.write_correlation(args.fsc, curves(runs, data), rows)
    _describe(args, data, networks)
    evaluation_table.show(rows)
    if certify_options is not None:
        from n2n_lightning.inference.certificates import certificates_of_runs

        files = certificates_of_runs(runs, data, "cpu", certify_options)
        _report_certificates(args.certify, files)
    if args.json:
        content = {"data": data.fingerprint, "noise": args.noise, "tta": args.tta, "scores": rows}
        evaluation_table.write_json(args.json, content)
    if args.csv:
        evaluation_table.write_csv(args.csv, found)
    if args.picture:
        evaluation_table.draw_extremes(found[first or NOISY_INPUT], data, args.picture)
    return failed


if __name__ == "__main__":
    command(main, parser)
