"""Report on runs and sweeps: `n2n report outputs --out report`.

Writes the figures and tables of the report "Noise2Noise PyTorch Implementation" for run folders and
sweeps: one page, `report.html`, that needs no other file and no network, and the same as PNG, CSV
and Markdown.
"""

import sys
from pathlib import Path
from typing import Any

from n2n_lightning.files import InputError, Parser, command
from n2n_lightning.reporting import sample_images, slider
from n2n_lightning.reporting.html import HtmlReport
from n2n_lightning.reporting.sample_images import Samples
from n2n_lightning.reporting.slider import Compared
from n2n_lightning.runs.folder import ranking_score, read_history

# PSNR (of which definition, it does not say) and training budget of each network in the report
# "Noise2Noise PyTorch Implementation".
PUBLISHED = {
    "EncoderDecoder": (12.11, "1,000 pairs, 25 epochs, batch 100, rate 0.1"),
    "UNet": (22.96, "50,000 pairs, 100 epochs, batch 100, rate 0.01"),
}
# PSNR by learning rate in its Figure 2, read off the picture.
PUBLISHED_RATES = {0.1: 23.27, 0.01: 23.45, 0.001: 23.18, 1e-4: 23.41, 1e-5: 23.43}
LOSSES = {
    "train_loss": "training, against noisy targets",
    "val_loss": "validation, against clean images",
    "val_noisy_loss": "validation, against noisy images",
    "val_mse_estimate": "validation, estimated error",
    "val_self_loss": "validation, of single images against themselves",
}


class ReportedRun:
    """Contents of a run folder, as far as they can be read.

    Args:
        folder: the run folder.
        name: of the run on the page.

    Attributes:
        result: result.json; empty if damaged.
        history: rows of metrics.csv.
        config: .hydra/config.yaml; empty if damaged.
        notes: a line for each file that cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        from n2n_lightning.runs.folder import read_result

        self.folder = folder
        self.name = name
        self.notes: list[str] = []
        self.result: dict[str, Any] = read_result(folder)
        if not self.result:
            self.notes.append(f"{folder}: result.json cannot be read")
        self.history = self._history()
        self.config = self._config()

    def _history(self) -> list[dict[str, float]]:
        try:
            return list(read_history(self.folder))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError):
            path = self.folder / "metrics.csv"
            self.notes.append(f"{path}: damaged; its curves are left out")
            return []

    def _config(self) -> dict[str, Any]:
        from omegaconf import OmegaConf

        path = self.folder / ".hydra" / "config.yaml"
        try:
            config: Any = OmegaConf.to_container(OmegaConf.load(path))
            return dict(config)
        except Exception:
            self.notes.append(f"{path}: missing or damaged")
            return {}

    def get(self, *keys: str, default: Any = None) -> Any:
        """Return a value of the configuration.

        Args:
            *keys: of the groups, then of the value.
            default: if it is missing, null or an empty group.

        Returns:
            A number, text or group.
        """
        value: Any = self.config
        for key in keys:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        return default if value == {} or value is None else value

    @property
    def network(self) -> str:
        return str(self.get("model", "_target_", default="?")).rpartition(".")[2]

    @property
    def state(self) -> str:
        return str(self.result.get("status", "unknown"))

    @property
    def data(self) -> dict[str, Any]:
        """The fingerprint of the data."""
        return self.result.get("data") or {}

    @property
    def is_course(self) -> bool:
        """True if the run was on the report's data."""
        return _is_course(self.result)

    @property
    def scored_captures(self) -> str | None:
        """The captures whose error a score without clean images is."""
        score_of = self.result.get("score_of") or {}
        captures: str | None = score_of.get("captures")
        return captures

    def budget(self) -> str:
        """Return pairs, epochs, batch size and learning rate."""
        pairs = self.data.get("train")
        epochs = self.result.get("epochs", len(self.history))
        batch_size = self.get("data", "batch_size", default="?")
        rate = self.get("optim", "lr", default="?")
        training = f"{epochs} epochs, batch {batch_size}, rate {rate}"
        if not pairs:
            return training
        return f"{pairs:,} pairs, {training}"


def collect(paths: list[Path]) -> tuple[list[ReportedRun], list[Path], list[str]]:
    """Find runs and sweeps in folders, at any depth.

    Args:
        paths: run folders, sweeps, or folders that hold them.

    Returns:
        The runs, the folders of sweeps, and a line for each path without a run.
    """
    runs: list[Path] = []
    sweeps: list[Path] = []
    notes: list[str] = []
    for path in paths:
        if not path.exists():
            notes.append(f"{path}: no such folder")
            continue
        if not path.is_dir():
            notes.append(f"{path}: not a folder of runs")
            continue
        folders = _run_folders(path)
        if not folders:
            notes.append(f"{path}: holds no runs")
        runs += [folder for folder in folders if folder not in runs]
        sweeps += [file.parent for file in sorted(path.rglob("sweep.json"))]
    base = paths[0] if len(paths) == 1 else Path()
    return [ReportedRun(folder, _run_name(folder, base)) for folder in runs], sweeps, notes


def _run_folders(path: Path) -> list[Path]:
    """Return the run folders in a folder, without attempts that a sweep repeated (`failed`)."""
    folders = {file.parent for file in path.rglob("result.json")}
    folders |= {file.parent.parent for file in path.rglob(".hydra/overrides.yaml")}
    current = []
    for folder in sorted(folders):
        above = folder.relative_to(path).parts[:-1]
        if "failed" not in above:
            current.append(folder)
    return current


def _run_name(folder: Path, base: Path) -> str:
    """Return the name of a run on the page: its path in `base`, or its last part or two."""
    if folder.is_relative_to(base) and folder != base:
        return str(folder.relative_to(base))
    if (folder.parent / "sweep.json").exists():
        return f"{folder.parent.name}/{folder.name}"
    return folder.name


def loss_figure(run: ReportedRun) -> Any:
    """Draw Figure 1: training and validation MSE against the epoch.

    Args:
        run: with a history.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.4), layout="constrained", dpi=120)
    ax = figure.subplots()
    for name, label in LOSSES.items():
        rows = [row for row in run.history if name in row]
        if rows:
            epochs = [row["epoch"] for row in rows]
            losses = [row[name] for row in rows]
            marker = "." if len(rows) < 30 else None
            ax.plot(epochs, losses, marker=marker, label=label)
    scale = "log" if ax.dataLim.ymax > 0 else "linear"  # an estimate may be 0 or less
    ax.set(xlabel="epoch", ylabel="mean squared error", yscale=scale)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    return figure


def _is_course(result: dict[str, Any]) -> bool:
    """Return True if a run was on the report's data."""
    return (result.get("data") or {}).get("name") == "course"


def rate_figure(folder: Path) -> Any:
    """Draw Figure 2: PSNR against the swept number.

    The report's figure is drawn into it for learning rates on the report's data.

    Args:
        folder: of a sweep.

    Returns:
        A matplotlib figure; None if no number was swept.
    """
    from n2n_lightning.runs.folder import read_result
    from n2n_lightning.sweep.results import numeric_axis, picture, read_sweep

    rows = [row for row in read_sweep(folder) if ranking_score(row) is not None]
    axis = numeric_axis(rows)
    if axis is None:
        return None
    figure = picture(rows, axis)
    if axis == "optim.lr" and all(_is_course(read_result(folder / row["job"])) for row in rows):
        ax = figure.axes[0]
        rates = sorted(PUBLISHED_RATES)
        scores = [PUBLISHED_RATES[rate] for rate in rates]
        ax.plot(rates, scores, "s--", color="gray", label="the report's Figure 2")
        ax.legend()
    return figure


def compared_jobs(folder: Path) -> list[Compared]:
    """Return images of a sweep's jobs side by side, those with the highest scores first.

    Returns:
        An entry per noisy image that the jobs have in common.
    """
    from n2n_lightning.sweep.results import read_sweep

    rows = read_sweep(folder)
    rows.sort(key=lambda row: -(ranking_score(row) or 0))
    runs = []
    for row in rows:
        path = folder / row["job"] / "samples.npz"
        if path.is_file():
            runs.append((row["point"], Samples.load(path)))
    return sample_images.side_by_side(runs)


def fsc_figure(curves: dict[str, list[float]]) -> Any:
    """Draw the Fourier shell correlation of two halves, before and after denoising.

    Args:
        curves: from `result.json`: correlations by name, and their "frequency".

    Returns:
        A matplotlib figure.
    """
    from n2n_lightning.metrics import fsc

    named: dict[str, Any] = {}
    for name, values in curves.items():
        if name != "frequency":
            named[f"{name} halves"] = values
    return fsc.draw_curves(named, curves["frequency"])


def layers(run: ReportedRun) -> list[dict[str, Any]]:
    """Return Table 1: the layers of the network in the order in which they run.

    Args:
        run: with a checkpoint.

    Returns:
        Name (layer), output channels, function and number of parameters of each layer;
        normalization and activation are in the row of the layer before them.
    """
    import torch
    from torch import nn

    from n2n_lightning.inference.checkpoint import read_info
    from n2n_lightning.inference.denoiser import load

    convolutions = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
    joined = (nn.BatchNorm2d, nn.BatchNorm3d, nn.LeakyReLU, nn.ReLU)
    network = load(run.folder, device="cpu").network
    rows: list[dict[str, Any]] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            text = type(module).__name__.lstrip("_")
            if isinstance(module, convolutions):
                text += " " + "x".join(map(str, module.kernel_size))
            count = sum(parameter.numel() for parameter in module.parameters())
            if isinstance(module, joined) and rows:
                rows[-1]["function"] += f", {text}"
                rows[-1]["parameters"] += count
                return
            row = {
                "layer": name.removesuffix(".0"),
                "channels": output.shape[1],
                "function": text,
                "parameters": count,
            }
            rows.append(row)

        return hook

    for name, module in network.named_modules():
        if name and not list(module.children()):
            module.register_forward_hook(note(name))
    channels = read_info(run.folder).model.get("channels", 3)
    size = [32] * getattr(network, "dims", 2)
    with torch.inference_mode():
        network(torch.zeros(1, channels, *size))
    return rows


def results(runs: list[ReportedRun]) -> list[dict[str, Any]]:
    """Return the table of results, the report's beside ours, a row per run.

    Returns:
        Values by column, the same columns in each row; None if unknown.
    """
    return [_result_row(run) for run in runs]


def _result_row(run: ReportedRun) -> dict[str, Any]:
    published, budget = None, ""
    if run.network in PUBLISHED and run.is_course:
        published, budget = PUBLISHED[run.network]
    difference = f"report: {budget}" if budget and budget != run.budget() else ""
    result = run.result
    without_outliers = result.get("val_psnr_without_outliers")
    without_outliers = without_outliers or result.get("val_psnr_estimate_without_outliers")
    return {
        "run": run.name,
        "state": run.state,
        "network": run.network,
        "data": run.data.get("name", "?"),
        "report": published,
        "PSNR, mean": result.get("val_psnr"),
        "PSNR, total": result.get("val_psnr_total"),
        "PSNR, estimated": result.get("val_psnr_estimate"),
        "PSNR, without outliers": without_outliers,
        "score of": run.scored_captures,
        "noisy, mean": result.get("noisy_psnr"),
        "noisy, total": result.get("noisy_psnr_total"),
        "noisy, estimated": result.get("noisy_psnr_estimate"),
        "best epoch": result.get("best_epoch"),
        "parameters": result.get("parameters"),
        "seconds": result.get("seconds"),
        "budget": run.budget(),
        "differs from the report": difference,
        "reason": result.get("reason"),
    }


def add_run(
    page: HtmlReport, run: ReportedRun, number: int, room: float, tables: dict[str, str]
) -> list[str]:
    """Append one run: its figures, its samples, Table 1 and its command.

    Args:
        page: the page.
        run: the run.
        number: of the run, for the names of files.
        room: bytes that its images may take.
        tables: the run that has Table 1 of a network, by the network's name; is added to.

    Returns:
        A line for each part that cannot be made.
    """
    page.heading(f"{run.name}: {run.network}")
    if run.state != "finished":
        page.paragraph(f"This run is {run.state}. {run.result.get('reason') or ''}", "failed")
    if run.scored_captures:
        page.paragraph(_scored(run))
    if run.history:
        caption = "Figure 1: mean squared error against the epoch"
        page.figure(f"figure1_{number}.png", loss_figure(run), caption)
    from n2n_lightning.reporting.certificate_page import add_run_certificate

    notes = _add_samples(page, run, number, room / 2)
    notes += add_run_certificate(page, run.folder, number, room / 2)
    curves = run.result.get("fsc")
    if isinstance(curves, dict):
        caption = "Fourier shell correlation of the two halves"
        page.figure(f"fsc_{number}.png", fsc_figure(curves), caption)
    notes += _add_layers(page, run, number, tables)
    if run.result.get("command"):
        page.heading("To repeat it", 3)
        page.code(str(run.result["command"]))
    return notes


def _scored(run: ReportedRun) -> str:
    """Return the captures that the score is of, with the noise of each, as a sentence."""
    captures = run.scored_captures or ""
    if captures.startswith("mean of both"):
        captures = captures.replace("mean of both", "both captures on average", 1)
    sigmas = run.result["score_of"].get("sigmas") or []
    shown = " and ".join(f"{sigma:.3g}" for sigma in sigmas)
    noise = f" (noise of the captures: sigma {shown})" if shown else ""
    return f"The score is that of {captures}{noise}."


def _add_samples(page: HtmlReport, run: ReportedRun, number: int, room: float) -> list[str]:
    """Append Figure 3, and the same images with a slider; see `add_run`."""
    path = run.folder / "samples.png"
    if path.is_file():
        estimated = run.result.get("noisy_psnr_estimate") is not None
        last = "another noisy capture, with the estimated" if estimated else "clean, with the"
        caption = f"Figure 3: noisy, denoised and {last} PSNR of each"
        page.picture(f"figure3_{number}.png", path.read_bytes(), caption)
    path = run.folder / "samples.npz"
    if path.is_file():
        try:
            pictures = sample_images.compared(Samples.load(path))
        except InputError as error:
            return [str(error)]
        pictures = sample_images.most_of(pictures, room)
        page.compared(slider.content(pictures, room), "The same images with a slider")
    return []


def _add_layers(
    page: HtmlReport, run: ReportedRun, number: int, tables: dict[str, str]
) -> list[str]:
    """Append Table 1, once for each network; see `add_run`."""
    if run.network in tables:
        page.paragraph(f"Table 1: as for {tables[run.network]}.", "note")
        return []
    if not (run.folder / "checkpoints").is_dir():
        return []
    try:
        rows = layers(run)
        tables[run.network] = run.name
        page.heading("Table 1: the network as built", 3)
        page.table(f"table1_{number}", rows)
    except InputError as error:
        return [str(error)]
    except Exception as error:  # a user's network may fail in any way
        return [f"{run.folder}: no Table 1 ({error})"]
    return []


def _add_sweep(page: HtmlReport, folder: Path, number: int, room: float) -> None:
    """Append Figure 2 of a sweep, and images of its best jobs side by side."""
    figure = rate_figure(folder)
    if figure:
        page.heading(f"Figure 2: PSNR against the swept value, {folder.name}")
        caption = "PSNR against the swept value; mean and deviation over seeds"
        page.figure(f"figure2_{number}.png", figure, caption)
    pictures = sample_images.most_of(compared_jobs(folder), room)
    if pictures:
        page.heading(f"Side by side: {folder.name}")
        caption = "Results of the best jobs for the same noisy image"
        page.compared(slider.content(pictures, room), caption)


def _add_introduction(page: HtmlReport, runs: list[ReportedRun]) -> None:
    """Append the title and the definitions of PSNR."""
    page.heading("Noise2Noise report", 1)
    page.paragraph(
        "PSNR is given in two definitions that must not be compared with one another: the mean over"
        " images of each image's PSNR, and the PSNR of the mean squared error over all images"
        " (total). Without clean images it is estimated from pairs of noisy ones, as a total. All"
        " scores are of the best epoch, on images that were not trained on."
    )
    if any(run.is_course for run in runs):
        page.paragraph(
            'The report whose figures stand beside ours, "Noise2Noise PyTorch Implementation", does'
            " not say which of these two its own are."
        )


def write_report(runs: list[ReportedRun], sweeps: list[Path], out: Path, most: int) -> list[str]:
    """Write the report.

    Args:
        runs: one or more.
        sweeps: their folders.
        out: folder of the report.
        most: number of runs that are shown in full, the best ones.

    Returns:
        A line for each part that could not be made.
    """
    notes = [note for run in runs for note in run.notes]
    page = HtmlReport(out)
    _add_introduction(page, runs)
    page.heading("Results")
    page.table("results", results(runs))
    best = sorted(runs, key=lambda run: -(ranking_score(run.result) or 0))[:most]
    room = slider.BYTES / (len(sweeps) + len(best))  # of images, for each
    for number, folder in enumerate(sweeps):
        try:
            _add_sweep(page, folder, number, room)
        except Exception as error:
            notes.append(f"{folder}: its sweep cannot be drawn ({type(error).__name__}: {error})")
    tables: dict[str, str] = {}
    for number, run in enumerate(best):
        notes += add_run(page, run, number, room, tables)
    if len(best) < len(runs):
        page.paragraph(
            f"The {len(best)} best of {len(runs)} runs in full; --most shows more.", "note"
        )
    if notes:
        page.heading("What could not be read")
        for note in notes:
            page.paragraph(note, "failed")
    page.write()
    return notes


def parser() -> Parser:
    """Return the options of the command."""
    p = Parser(prog="n2n report", description=__doc__.splitlines()[0])
    p.add_argument(
        "folders", nargs="+", type=Path, help="run folders, sweeps, or folders with them inside"
    )
    p.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (report)")
    p.add_argument(
        "--most", type=int, default=8, help="runs that are shown in full, the best ones (8)"
    )
    return p


def main() -> int:
    args = parser().parse_args()
    if args.out.exists() and not args.out.is_dir():
        raise InputError("out", args.out, "is a file; name a folder")
    runs, sweeps, missing = collect(args.folders)
    if not runs:
        raise InputError("; ".join(missing))
    notes = missing + write_report(runs, sweeps, args.out, args.most)
    for note in notes:
        print("error:", note, file=sys.stderr)
    counts = []
    for part, name in ((runs, "run"), (sweeps, "sweep")):
        plural = "" if len(part) == 1 else "s"
        counts.append(f"{len(part)} {name}{plural}")
    print(f"{args.out / 'report.html'}: {', '.join(counts)}")
    return 1 if notes else 0


if __name__ == "__main__":
    command(main, parser)
