"""Quality of denoised images: PSNR, scores without clean images, SURE, FSC, classical filters."""
