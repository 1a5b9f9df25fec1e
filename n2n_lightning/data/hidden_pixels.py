"""Blind spots in space and time: single pixels of a movie frame are hidden, and learnt."""

from collections.abc import Sequence

import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.bad_pixels import inpaint
from n2n_lightning.data.self_supervised import Noise2Void
from n2n_lightning.files import InputError


class HiddenPixels:
    """Blind spots of a movie: a share of the pixels of a frame is hidden between its neighbours.

    The network is shown the frames before, the frame itself and the frames after it. In training
    single pixels of the frame get the value of another one near them, as in Noise2Void
    (self_supervised.Noise2Void), and they alone are targets. So an event that begins in a frame is
    known from the pixels around the hidden one. SUPPORT (Eom et al., Nature Methods 2023) has the
    same blind spot by construction of its network, which sees it hidden in use as well; here
    nothing is hidden in use.

    Where the noise of neighbouring pixels or frames is correlated, the mask hides them, too.

    Args:
        share: of the pixels of a frame that are hidden, about: larger masks have fewer targets.
        mask: height and width of what is hidden around each target, odd numbers, or frames, height
            and width: 3 frames hide the same place in the frame before and in the one after.
        cubes: the voxels of volumes are as deep as they are high and wide.
    """

    def __init__(
        self, share: float = 0.1, mask: Sequence[int] = (1, 1), cubes: bool = False
    ) -> None:
        frames = mask[0] if len(mask) == 3 else 1
        odd = [side for side in mask if isinstance(side, int) and side > 0 and side % 2]
        if len(mask) not in (2, 3) or len(odd) != len(mask):
            raise InputError(
                "data.mask",
                list(mask),
                "must be height and width, or frames, height and width, odd numbers: [1,9] or"
                " [3,1,1] say",
            )
        self.spots = Noise2Void(share, mask[-2:], cubes)
        height, width = self.spots.mask
        self.spots.share = share / (height * width)
        self.reach = frames // 2

    @property
    def mask(self) -> list[int]:
        """Frames, height and width of what is hidden around each target."""
        return [2 * self.reach + 1, *self.spots.mask]

    @property
    def square(self) -> bool:
        """True if quarter turns leave the mask as it is."""
        height, width = self.spots.mask
        return height == width

    def __call__(
        self, frames: Tensor, distances: Tensor, draws: torch.Generator
    ) -> dict[str, Tensor]:
        """Hide pixels of the frames in the middle.

        Args:
            frames: (B, F, C, H, W) or (B, F, C, D, H, W), NaN where a pixel is missing.
            distances: of each frame from the one in the middle, in frames, (B, F). At the ends of
                a movie copies of the frame in the middle stand for missing neighbours: their
                distance is 0, and they hide the same pixels.
            draws: random generator, on the CPU.

        Returns:
            `input`, (B, F x C, ...), and `target`, (B, C, ...), NaN but for the hidden pixels.
        """
        device = frames.device
        count, number = distances.shape
        truth = frames[:, number // 2]
        spots = self.spots.draw_spots(count, axes.size(truth), draws)
        image, place, other = spots.indices
        # Values of other hidden pixels would show one target at the place of another.
        leaks = spots.hidden[(image, 0, *other)]
        targets = spots.targets
        if self.spots.white:
            targets[(image[leaks], 0, *place[:, leaks])] = False
            image, place, other = image[~leaks], place[:, ~leaks], other[:, ~leaks]
            leaks = leaks[~leaks]
        shown = frames.clone()
        hides = distances.cpu().abs() <= self.reach
        for f in range(number):
            chosen = hides[image, f]
            if not chosen.any():
                continue
            at = image[chosen].to(device)
            values = frames[(at, f, slice(None), *other[:, chosen].to(device))]
            values[leaks[chosen].to(device)] = torch.nan
            shown[(at, f, slice(None), *place[:, chosen].to(device))] = values
        return {
            "input": inpaint(shown.flatten(1, 2)),
            "target": torch.where(targets.to(device), truth, torch.nan),
        }
