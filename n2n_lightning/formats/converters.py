"""Advice on converting kinds of files that are not read."""

from pathlib import Path

FIJI = "Fiji (Bio-Formats) saves it as OME-TIFF"
FFMPEG = "ffmpeg makes an .avi or .mkv of it: `ffmpeg -i NAME -c:v ffv1 NAME.mkv`"
RAW = "a raw converter (darktable, or rawpy in Python) makes a 16 bit TIFF of it"
MAGICK = "ImageMagick makes a 16 bit TIFF or PNG of it: `magick NAME -depth 16 NAME.tif`"
NIFTI = "dcm2niix or nibabel makes NIfTI of it"
MRC = "IMOD (newstack) or e2proc2d.py makes MRC of it"
# Advice, and the endings that it is for.
ADVICE = {
    FIJI: "lif lsm stk oib oif oir vsi svs ndpi scn mrxs ids ics dv r3d zvi sld flex mvd2 lim xdce"
    " bif qptiff zip.ims",
    RAW: "dng cr2 cr3 nef arw raf orf rw2 pef srw",
    MAGICK: "exr heic heif avif jxl jp2 j2k gif hdr pfm tga psd ico pcx dpx",
    FFMPEG: "wmv flv webm mpg mpeg m4v mts m2ts 3gp ogv y4m mxf ts",
    NIFTI: "par rec.par mgz mgh mha mhd nrrd nhdr img hdr.img minc mnc v",
    MRC: "dm3 dm4 eer emd ser emi spi raw.mrc tvips gain",
    "SER Player or Siril makes FITS or AVI of it": "ser.avi",
    "PixInsight or Siril makes FITS of it": "xisf",
    "funpack makes .fits of it": "fz",
    "unpack it first: gunzip": "gz tgz",
    "unpack it first: bunzip2": "bz2",
    "unpack it first: unxz or zstd -d": "xz zst",
    "unpack it first: unzip, 7z x or tar xf": "zip 7z tar rar",
    "save the array as .npy or .mat version 7.3 as .h5": "mat nc hspy tdms b2nd n5 sif spe",
    "its size and type are not in it: np.fromfile and np.save make .npy of it": "raw bin dat",
}
_ADVICE_BY_ENDING = {
    f".{name.split('.')[0]}": advice for advice, names in ADVICE.items() for name in names.split()
}


def advice(path: Path) -> str:
    """Return what converts a file of a kind that is not read.

    Returns:
        A sentence for a message; empty if nothing is known.

    >>> advice(Path("cells.LIF"))
    'Fiji (Bio-Formats) saves it as OME-TIFF'
    """
    return _ADVICE_BY_ENDING.get(path.suffix.lower(), "")
