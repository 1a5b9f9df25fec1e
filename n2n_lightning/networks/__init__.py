"""Denoising networks, plain modules without training code. One file per family.

Every network takes float images (B, C, H, W), values in [0, 1] up to noise, of any height and
width, and returns the denoised images in the same shape. Checkpoints name a network by this
package: n2n_lightning.networks.UNet.
"""

from n2n_lightning.networks.block_unet import DRUNet, NAFNet
from n2n_lightning.networks.dncnn import DnCNN
from n2n_lightning.networks.encoder_decoder import EncoderDecoder, UNet
from n2n_lightning.networks.network import (
    Network,
    apply,
    multiple_of,
    multiply_accumulates,
    network_spec,
    pad_to_multiple,
    to_channels_last,
)
from n2n_lightning.networks.noise2noise import Noise2NoiseUNet
from n2n_lightning.networks.residual_unet import ResidualUNet
from n2n_lightning.networks.temporal import TemporalDRUNet

__all__ = [
    "DRUNet",
    "DnCNN",
    "EncoderDecoder",
    "NAFNet",
    "Network",
    "Noise2NoiseUNet",
    "ResidualUNet",
    "TemporalDRUNet",
    "UNet",
    "apply",
    "multiple_of",
    "multiply_accumulates",
    "network_spec",
    "pad_to_multiple",
    "to_channels_last",
]
