#!/bin/sh
# Install n2n from its source: install.sh SOURCE [TORCH_INDEX]. The containers and clean_root.sh run it.
#   SOURCE       the project's folder
#   TORCH_INDEX  where this build of torch lies, as https://download.pytorch.org/whl/cpu; without it: pip's default
set -eu
SOURCE=$1
python3 -m pip install --no-cache-dir ${2:+--index-url "$2"} torch==2.13.0
python3 -m pip install --no-cache-dir --constraint "$SOURCE/constraints.txt" "$SOURCE[formats,hub,serve]"
