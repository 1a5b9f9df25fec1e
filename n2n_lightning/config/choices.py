"""Choices shared by commands, configurations and Python; imports no library."""

# auto: as stored, unless there is evidence against them; replace: inpainted and denoised; keep:
# treated as any pixel.
OUTLIERS = ("auto", "replace", "keep")
# The type of results of whole numbers; auto: float32 where rounding would do harm
# (n2n_lightning.rounding).
DTYPES = ("auto", "keep", "float32")
# What happens to label images and masks.
LABEL_IMAGES = ("copy", "denoise")
# What starts the processes of `denoise` elsewhere; their keys are in conf/hydra/launcher.
LAUNCHERS = ("slurm", "ray")
