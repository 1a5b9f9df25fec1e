"""How good denoised images are: PSNR, estimates without clean images, SURE, FSC, classical references."""
