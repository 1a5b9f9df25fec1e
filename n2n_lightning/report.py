"""Run folders and sweeps as the report's figures and tables: `python -m n2n_lightning.report outputs --out report`.

Writes one page, `report.html`, that needs no other file and no network, and the same as PNG, CSV
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

# What the report "Noise2Noise PyTorch Implementation" gives, by the network: its PSNR (it does not
# say which definition), and the budget behind it.
PUBLISHED = {
    "EncoderDecoder": (12.11, "1,000 pairs, 25 epochs, batch 100, rate 0.1"),
    "UNet": (22.96, "50,000 pairs, 100 epochs, batch 100, rate 0.01"),
}
# Its Figure 2, read off the picture.
PUBLISHED_RATES = {0.1: 23.27, 0.01: 23.45, 0.001: 23.18, 1e-4: 23.41, 1e-5: 23.43}


class ReportedRun:
    """What a run folder holds, as far as it can be read; `notes` says what could not."""

    def __init__(self, folder: Path, name: str) -> None:
        from n2n_lightning.runs.folder import read_result

        self.folder, self.name, self.notes = folder, name, []
        self.result: dict[str, Any] = read_result(folder)
        if not self.result:
            self.notes.append(f"{folder}: result.json cannot be read")
        self.history = self._history()
        self.config = self._config()

    def _history(self) -> list[dict[str, float]]:
        path = self.folder / "metrics.csv"
        try:
            return list(read_history(self.folder))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError):
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
        """A value of the configuration."""
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

    def budget(self) -> str:
        pairs = (self.result.get("data") or {}).get("train")
        parts = [
            f"{pairs:,} pairs" if pairs else "",
            f"{self.result.get('epochs', len(self.history))} epochs",
            f"batch {self.get('data', 'batch_size', default='?')}",
            f"rate {self.get('optim', 'lr', default='?')}",
        ]
        return ", ".join(part for part in parts if part)


def collect(paths: list[Path]) -> tuple[list[ReportedRun], list[Path], list[str]]:
    """Runs and sweeps in the folders, at any depth; and a line for each folder that holds none."""
    runs, sweeps, notes = [], [], []
    for path in paths:
        if not path.is_dir():
            notes.append(
                f"{path}: no such folder" if not path.exists() else f"{path}: not a folder of runs"
            )
            continue
        # What a sweep repeated lies in its folder `failed`, and is no run of its own any more.
        marks = [*path.rglob("result.json"), *path.rglob(".hydra/overrides.yaml")]
        folders = [p.parent if p.name == "result.json" else p.parent.parent for p in marks]
        found = sorted({f for f in folders if "failed" not in f.relative_to(path).parts[:-1]})
        sweeps += [p.parent for p in sorted(path.rglob("sweep.json"))]
        if not found:
            notes.append(f"{path}: holds no runs")
        runs += [folder for folder in found if folder not in runs]
    base = paths[0] if len(paths) == 1 else Path()
    named = []
    for folder in runs:
        inside = folder.is_relative_to(base) and folder != base
        in_sweep = (folder.parent / "sweep.json").exists()
        plain = f"{folder.parent.name}/{folder.name}" if in_sweep else folder.name
        named.append(ReportedRun(folder, str(folder.relative_to(base)) if inside else plain))
    return named, sweeps, notes


def loss_figure(run: ReportedRun) -> Any:
    """Figure 1: training and validation MSE against the epoch."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.4), layout="constrained", dpi=120)
    ax = figure.subplots()
    for name, label in (
        ("train_loss", "training, against noisy targets"),
        ("val_loss", "validation, against clean images"),
        ("val_noisy_loss", "validation, against noisy images"),
        ("val_mse_estimate", "validation, estimated error"),
        ("val_self_loss", "validation, of single images against themselves"),
    ):
        points = [(row["epoch"], row[name]) for row in run.history if name in row]
        if points:
            ax.plot(
                *zip(*points, strict=True), marker="." if len(points) < 30 else None, label=label
            )
    scale = "log" if ax.dataLim.ymax > 0 else "linear"  # what is drawn may have no logarithm
    ax.set(xlabel="epoch", ylabel="mean squared error", yscale=scale)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    return figure


def _of_the_course(result: dict[str, Any]) -> bool:
    """Whether a run was on the report's data."""
    return (result.get("data") or {}).get("name") == "course"


def rate_figure(folder: Path) -> Any:
    """Figure 2: PSNR against the swept number; for rates on the report's data, the report's, too. None without one."""
    from n2n_lightning.runs.folder import read_result
    from n2n_lightning.sweep.results import numeric_axis, picture, read_sweep

    rows = [row for row in read_sweep(folder) if ranking_score(row) is not None]
    axis = numeric_axis(rows)
    if axis is None:
        return None
    figure = picture(rows, axis)
    if axis == "optim.lr" and all(_of_the_course(read_result(folder / row["job"])) for row in rows):
        ax = figure.axes[0]
        ax.plot(
            *zip(*sorted(PUBLISHED_RATES.items()), strict=True),
            "s--",
            color="gray",
            label="the report's Figure 2",
        )
        ax.legend()
    return figure


def of_sweep(folder: Path) -> list[Compared]:
    """Images of a sweep's jobs side by side, those with the highest scores first."""
    from n2n_lightning.sweep.results import read_sweep

    rows = [row for row in read_sweep(folder) if (folder / row["job"] / "samples.npz").is_file()]
    rows.sort(key=lambda row: -(ranking_score(row) or 0))
    return sample_images.side_by_side(
        [(row["point"], Samples.load(folder / row["job"] / "samples.npz")) for row in rows]
    )


def fsc_figure(curves: dict[str, list[float]]) -> Any:
    """Fourier shell correlation of two halves, before and after, as `result.json` has it."""
    from n2n_lightning.metrics import fsc

    named: dict[str, Any] = {
        f"{name} halves": values for name, values in curves.items() if name != "frequency"
    }
    return fsc.draw_curves(named, curves["frequency"])


def layers(run: ReportedRun) -> list[tuple[str, int, str, int]]:
    """Table 1: name, output channels, function and parameters of each layer of the network, as it is run."""
    import torch
    from torch import nn

    from n2n_lightning.inference.checkpoint import read_info
    from n2n_lightning.inference.denoiser import load

    network = load(run.folder).network
    rows: list[tuple[str, int, str, int]] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            text = type(module).__name__.lstrip("_")
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d):
                text += " " + "x".join(map(str, module.kernel_size))
            count = sum(p.numel() for p in module.parameters())
            if (
                isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d | nn.LeakyReLU | nn.ReLU)
                and rows
            ):
                before = rows.pop()  # one row with the layer that it follows
                rows.append((before[0], before[1], f"{before[2]}, {text}", before[3] + count))
            else:
                rows.append((name.removesuffix(".0"), output.shape[1], text, count))

        return hook

    for name, module in network.named_modules():
        if not list(module.children()) and name:
            module.register_forward_hook(note(name))
    channels = read_info(run.folder).model.get("channels", 3)
    with torch.inference_mode():
        network(torch.zeros(1, channels, *[32] * getattr(network, "dims", 2)))
    return rows


def results(runs: list[ReportedRun]) -> list[dict[str, Any]]:
    """The results table: one row per run, the report's figure beside ours."""
    rows = []
    for run in runs:
        published, budget = PUBLISHED.get(run.network, (None, ""))
        same = run.network in PUBLISHED and _of_the_course(run.result)
        ours = run.budget()
        rows.append(
            {
                "run": run.name,
                "state": run.state,
                "network": run.network,
                "data": (run.result.get("data") or {}).get("name", "?"),
                "report": published if same else None,
                "PSNR, mean": run.result.get("val_psnr"),
                "PSNR, total": run.result.get("val_psnr_total"),
                "PSNR, estimated": run.result.get("val_psnr_estimate"),
                "PSNR, without outliers": run.result.get("val_psnr_without_outliers")
                or run.result.get("val_psnr_estimate_without_outliers"),
                "noisy, mean": run.result.get("noisy_psnr"),
                "noisy, total": run.result.get("noisy_psnr_total"),
                "noisy, estimated": run.result.get("noisy_psnr_estimate"),
                "best epoch": run.result.get("best_epoch"),
                "parameters": run.result.get("parameters"),
                "seconds": run.result.get("seconds"),
                "budget": ours,
                "differs from the report": f"report: {budget}" if same and budget != ours else "",
                "reason": run.result.get("reason"),
            }
        )
    return rows


def in_full(
    page: HtmlReport, run: ReportedRun, number: int, room: float, tables: dict[str, str]
) -> list[str]:
    """One run: its figures, its samples, Table 1 and its command; returns a line for each part that cannot be made.

    Args:
        page: that it is added to.
        run: the run.
        number: of the run, for the names of files.
        room: bytes that its pictures may take.
        tables: networks whose Table 1 is there already, by name, and in which run.
    """
    notes: list[str] = []
    page.heading(f"{run.name}: {run.network}")
    if run.state != "finished":
        page.paragraph(f"This run is {run.state}. {run.result.get('reason') or ''}", "failed")
    if run.history:
        page.figure(
            f"figure1_{number}.png",
            loss_figure(run),
            "Figure 1: mean squared error against the epoch",
        )
    if (run.folder / "samples.png").is_file():
        estimated = run.result.get("noisy_psnr_estimate") is not None
        last = "another noisy capture, with the estimated" if estimated else "clean, with the"
        caption = f"Figure 3: noisy, denoised and {last} PSNR of each"
        page.picture(f"figure3_{number}.png", (run.folder / "samples.png").read_bytes(), caption)
    if (run.folder / "samples.npz").is_file():
        try:
            pictures = sample_images.most_of(
                sample_images.compared(Samples.load(run.folder / "samples.npz")), room
            )
            page.compared(slider.content(pictures, room), "The same images with a slider")
        except InputError as error:
            notes.append(str(error))
    if isinstance(curves := run.result.get("fsc"), dict):
        page.figure(
            f"fsc_{number}.png", fsc_figure(curves), "Fourier shell correlation of the two halves"
        )
    if run.network not in tables and (run.folder / "checkpoints").is_dir():
        try:
            names = ("layer", "channels", "function", "parameters")
            rows = [dict(zip(names, row, strict=True)) for row in layers(run)]
            tables[run.network] = run.name
            page.heading("Table 1: the network as built", 3)
            page.table(f"table1_{number}", rows)
        except Exception as error:  # a network of one's own may fail in its own way
            notes.append(
                str(error)
                if isinstance(error, InputError)
                else f"{run.folder}: no Table 1 ({error})"
            )
    elif run.network in tables:
        page.paragraph(f"Table 1: as for {tables[run.network]}.", "note")
    if run.result.get("command"):
        page.heading("To repeat it", 3)
        page.code(str(run.result["command"]))
    return notes


def build(runs: list[ReportedRun], sweeps: list[Path], out: Path, most: int) -> list[str]:
    """Writes the report; returns a line for each part that could not be made."""
    notes = [note for run in runs for note in run.notes]
    page = HtmlReport(out)
    page.heading("Noise2Noise report", 1)
    page.paragraph(
        "PSNR is given in two definitions that must not be compared with one another: the mean"
        " over images of each image's PSNR, and the PSNR of the mean squared error over all"
        " images (total). Where there are no clean images it is estimated from pairs of noisy"
        " ones, as a total. All scores are of the best epoch, on images that were not trained on."
    )
    if any(_of_the_course(run.result) for run in runs):
        page.paragraph(
            'The report whose figures stand beside ours, "Noise2Noise PyTorch Implementation", does not say which of'
            " these two its own are."
        )
    page.heading("Results")
    page.table("results", results(runs))
    best = sorted(runs, key=lambda run: -(ranking_score(run.result) or 0))[:most]
    room = slider.BYTES / (len(sweeps) + len(best))  # of pictures, for each
    for number, folder in enumerate(sweeps):
        try:
            if figure := rate_figure(folder):
                page.heading(f"Figure 2: PSNR against the swept value, {folder.name}")
                page.figure(
                    f"figure2_{number}.png",
                    figure,
                    "PSNR against the swept value; mean and deviation over seeds",
                )
            if pictures := sample_images.most_of(of_sweep(folder), room):
                page.heading(f"Side by side: {folder.name}")
                page.compared(
                    slider.content(pictures, room),
                    "What the best jobs made of the same noisy image",
                )
        except Exception as error:
            notes.append(f"{folder}: its sweep cannot be drawn ({type(error).__name__}: {error})")
    tables: dict[str, str] = {}
    for number, run in enumerate(best):
        notes += in_full(page, run, number, room, tables)
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
    p = Parser(prog="python -m n2n_lightning.report", description=__doc__.splitlines()[0])
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
    notes = missing + build(runs, sweeps, args.out, args.most)
    for note in notes:
        print("error:", note, file=sys.stderr)
    counts = [
        f"{len(part)} {name}{'s' * (len(part) != 1)}"
        for part, name in ((runs, "run"), (sweeps, "sweep"))
    ]
    print(f"{args.out / 'report.html'}: {', '.join(counts)}")
    return 1 if notes else 0


if __name__ == "__main__":
    command(main, parser)
