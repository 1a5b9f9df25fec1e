"""Blind spots in space and time: single pixels of a movie frame are hidden, and learnt."""

from typing import Any

import torch
from torch import Tensor

from n2n_lightning.arrays import axes
from n2n_lightning.arrays.bad_pixels import inpaint
from n2n_lightning.data.mask import Mask
from n2n_lightning.data.self_supervised import Noise2Void, around
from n2n_lightning.devices.copies import sent


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
        mask: what is hidden around each target, or what `Mask.of` takes: `[3,1,1]` hides the same
            place in the frame before and in the one after.
        cubes: the voxels of volumes are as deep as they are high and wide.
    """

    def __init__(self, share: float = 0.1, mask: Any = (1, 1), cubes: bool = False) -> None:
        self.mask = mask if isinstance(mask, Mask) else Mask.of(mask)
        in_any_frame = Mask.flat((y, x) for _, y, x in self.mask.offsets)
        self.spots = Noise2Void(share, in_any_frame, cubes)
        frames, _, _ = self.mask.sides
        self.reach = frames // 2

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
        hidden_at = self._hidden_at(spots.targets)
        for f in range(number):
            chosen = torch.zeros_like(leaks)
            of_frame = distances[:, f].cpu()
            for distance, hidden in hidden_at.items():
                is_at = of_frame == distance
                is_hidden = hidden[(image, 0, *place)]
                chosen |= is_at[image] & is_hidden
            if not chosen.any():
                continue
            at = sent(image[chosen], device)
            source = sent(other[:, chosen], device)
            target = sent(place[:, chosen], device)
            values = frames[(at, f, slice(None), *source)]
            values[sent(leaks[chosen], device)] = torch.nan
            shown[(at, f, slice(None), *target)] = values
        return {
            "input": inpaint(shown.flatten(1, 2)),
            "target": torch.where(sent(targets, device), truth, torch.nan),
        }

    def _hidden_at(self, targets: Tensor) -> dict[int, Tensor]:
        """Return the pixels that are hidden in frames at each distance, in the shape of targets."""
        hidden = {}
        for distance in range(-self.reach, self.reach + 1):
            of_frame = Mask.flat(self.mask.plane(distance))
            hidden[distance] = around(targets, of_frame)
        return hidden
