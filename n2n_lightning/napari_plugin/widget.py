"""The widget: a layer, a checkpoint, a strength; progress, and a button that ends it.

napari brings magicgui and Qt along; this module is imported by napari alone.
"""

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import (
    ComboBox,
    Container,
    FloatSlider,
    Label,
    LineEdit,
    ProgressBar,
    PushButton,
    create_widget,
)
from qtpy.QtCore import QTimer

from n2n_lightning.files import one_line
from n2n_lightning.inference.models import MODELS
from n2n_lightning.napari_plugin.layers import axes_of_layer, denoise_layer, kept_properties

if TYPE_CHECKING:
    import napari


class Cancelled(Exception):
    """The person pressed Cancel."""


class DenoiseWidget(Container):
    """The widget that napari docks.

    Args:
        viewer: whose layers can be chosen, and which gets the result.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        self._viewer = viewer
        self._cancelled = threading.Event()
        self._worker: Any = None
        self._share = 0.0
        self._clock = QTimer()  # the bar belongs to the thread of the window
        self._clock.timeout.connect(self._show_progress)
        self.layer = create_widget(annotation="napari.layers.Image", label="Image")
        self.axes = LineEdit(label="Axes", value="")
        self.axes.tooltip = "H, W; C: channels, D: depth, T: time, N: images of their own"
        self.checkpoint = ComboBox(label="Checkpoint", choices=list(MODELS))
        self.other = LineEdit(label="or a file", value="")
        self.other.tooltip = "a run folder, or a checkpoint file"
        self.strength = FloatSlider(label="Strength", min=0, max=1, step=0.05, value=1)
        self.start = PushButton(text="Denoise")
        self.cancel = PushButton(text="Cancel", enabled=False)
        self.progress = ProgressBar(min=0, max=1000, value=0)
        self.message = Label(value="")
        super().__init__(
            widgets=[
                self.layer, self.axes, self.checkpoint, self.other, self.strength,
                self.start, self.cancel, self.progress, self.message,
            ]
        )  # fmt: skip
        self.layer.changed.connect(self._show_axes)
        self.start.clicked.connect(self._begin)
        self.cancel.clicked.connect(self._cancelled.set)
        self._show_axes()

    def _show_axes(self) -> None:
        layer = self.layer.value
        if layer is not None:
            data = layer.data[0] if layer.multiscale else layer.data
            labels = getattr(layer, "axis_labels", ())
            self.axes.value = axes_of_layer(data.shape, layer.rgb, labels)

    def _show_progress(self) -> None:
        self.progress.value = round(1000 * self._share)

    def _begin(self) -> None:
        """Denoise the chosen layer in a thread."""
        from napari.qt.threading import create_worker

        layer = self.layer.value
        if layer is None:
            self.message.value = "There is no image layer."
            return
        self._cancelled.clear()
        self.start.enabled = False
        self.cancel.enabled = True
        self.message.value = ""
        self._share = 0.0
        self._clock.start(100)  # milliseconds
        data = layer.data[0] if layer.multiscale else layer.data  # the full resolution
        image = np.asarray(data)
        checkpoint = self.other.value or self.checkpoint.value
        worker = create_worker(
            self._denoised, image, checkpoint, self.strength.value, self.axes.value
        )
        worker.returned.connect(lambda result: self._show(layer, result))
        worker.finished.connect(self._end)
        self._worker = worker
        worker.start()

    def _denoised(
        self, image: np.ndarray, checkpoint: str, strength: float, axes: str
    ) -> np.ndarray | str:
        """Denoise in the thread of the worker, where an error would end the program.

        Returns:
            The result, or why there is none.
        """
        try:
            return denoise_layer(image, checkpoint, strength, axes, self._advance)
        except Cancelled:
            return "Cancelled."
        except Exception as error:
            return one_line(error)

    def _advance(self, share: float) -> None:
        """Note progress, in the thread of the worker."""
        if self._cancelled.is_set():
            raise Cancelled
        self._share = share

    def _show(self, layer: Any, result: np.ndarray | str) -> None:
        """Add the denoised layer, or show why there is none."""
        if isinstance(result, str):
            self.message.value = result
            return
        name = f"{layer.name} denoised"
        self._viewer.add_image(result, name=name, rgb=layer.rgb, **kept_properties(layer))

    def _end(self) -> None:
        self._clock.stop()
        self._show_progress()
        self.start.enabled = True
        self.cancel.enabled = False
