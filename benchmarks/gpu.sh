#!/bin/bash
# A quarter of an hour on a machine with one NVIDIA card and no network; everything goes to OUT.
#
#     bash benchmarks/gpu.sh OUT PHOTOS            from the root of the project
#     DRY=1 bash benchmarks/gpu.sh OUT PHOTOS      the same commands for seconds, on a processor
#
# PHOTOS: a folder of photographs, subfolders too; PART="train measure" leaves out the other.
# PYTHON names the interpreter: the package need not be installed, its dependencies must be.
#
# 1. `train`: the bundled checkpoint goes on for six minutes with the largest batch that fits;
#    its averaged weights are OUT/pretrained.ckpt.
# 2. `measure`: tests/test_gpu.py; images per second beside loops by hand; 10 and 100 megapixels;
#    milliseconds of draws, losses, tiles, texture and CUDA graphs (benchmarks/gpu_parts.py);
#    the report's U-Net for its 50,000 pairs and 100 epochs, and its grid of rates at a tenth.
#
# Every step has a time limit of its own, so that one that hangs costs no other; OUT/summary.txt
# says how each ended.
set -u
out=$(realpath -m "${1:?a folder for the results}")
photos=$(realpath "${2:?a folder of photographs}")
python=${PYTHON:-python3}
part=${PART:-train measure}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

if [ -n "${DRY:-}" ]; then
    minutes=00:00:00:05 batches="8 4" crops=32 images=1000 epochs=1 tenth=1 rounds=1
    small="model.widths=[4,4,4] model.blocks=[1,1,1] data.specimens=2 data.fabrics=2 data.leaves=2"
    small+=" data.held=2" pixels="256" networks="unet" parts=--small
else
    minutes=00:00:06:00 batches="512 256 128 64" crops=20000 images=50000 epochs=100 tenth=10
    rounds=3 small="" pixels="3162 10000" networks="unet noise2noise best" parts=
fi

step() {  # step NAME SECONDS COMMAND...: run it, note how it ended and how long it took
    local name=$1 limit=$2 begun=$SECONDS
    shift 2
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    local status=$?
    echo "$name: exit $status after $((SECONDS - begun)) s" | tee -a "$out/summary.txt"
    return $status
}

train() { "$python" -m n2n_lightning.train "$@"; }
export -f train
export python

: >"$out/summary.txt"
"$python" - <<'END' | tee -a "$out/summary.txt"
import torch

if torch.cuda.is_available():
    card = torch.cuda.get_device_properties(0)
    print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, torch {torch.__version__}")
else:
    print(f"no card, torch {torch.__version__}")
END

if [[ $part == *train* ]]; then
    for batch in $batches; do
        start=init=pretrained
        [ -n "$small" ] && start=init=null
        # shellcheck disable=SC2086
        step "train_$batch" 460 bash -c 'train "$@"' _ experiment=pretrained "$start" $small \
            "data.root=[$photos]" "data.batch_size=$batch" "data.train_pairs=$crops" \
            data.size=128 optim.lr=0.0004 trainer.max_epochs=1000 "trainer.max_time=$minutes" \
            "hydra.run.dir=$work/pretrained_$batch"
        status=$?
        if [ $status = 0 ]; then
            cp "$work/pretrained_$batch/result.json" "$out/pretrained.json"
            "$python" - "$work/pretrained_$batch/checkpoints/best.ckpt" "$out/pretrained.ckpt" <<'END'
import sys

import torch

state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
training = ("optimizer_states", "lr_schedulers", "loops", "callbacks")
torch.save({key: value for key, value in state.items() if key not in training}, sys.argv[2])
END
            break
        fi
        grep -qi "out of memory\|--tile\|data.batch_size" "$out/train_$batch.log" || break
    done
fi

if [[ $part == *measure* ]]; then
    step tests 150 "$python" -m pytest -q -p no:cacheprovider tests/test_gpu.py
    # shellcheck disable=SC2086
    step training 120 "$python" benchmarks/training.py --networks $networks --rounds $rounds \
        --images $((images / 10)) --batch 100 --out "$out/training.json"
    # shellcheck disable=SC2086
    step parts 90 "$python" benchmarks/gpu_parts.py $parts
    # shellcheck disable=SC2086
    step megapixels 60 "$python" - $pixels <<'END'
import sys
import time

import numpy as np
import torch

from n2n_lightning import load

device = "cuda" if torch.cuda.is_available() else "cpu"
for fast in (False, True):
    network = load(fast=fast).to(device)
    for side in map(int, sys.argv[1:]):
        noisy = np.random.default_rng(0).normal(0.5, 0.1, (side, side)).astype(np.float32)
        for _ in range(2):  # the first one chooses kernels
            begun = time.perf_counter()
            network.denoise(noisy, axes="HW")
            seconds = time.perf_counter() - begun
        print(f"{side * side / 1e6:.1f} megapixels, fast={fast}: {seconds:.2f} s")
END
    report=("data=images" "data.root=[$photos]" noise=pixelate data.size=32
        "data.train_pairs=$images" data.batch_size=100 scheduler=constant)
    step unet 200 bash -c 'train "$@"' _ "${report[@]}" model=unet optim.lr=0.01 \
        "trainer.max_epochs=$epochs" "hydra.run.dir=$work/unet"
    cp "$work/unet/result.json" "$out/unet.json" 2>/dev/null
    step grid 200 bash -c 'train "$@"' _ -m "${report[@]}" model=unet \
        "data.train_pairs=$((images / 10))" optim.lr=0.1,0.01,0.001,0.0001,0.00001 \
        "trainer.max_epochs=$tenth" "hydra.sweep.dir=$work/grid"
    cp "$work/grid/sweep.csv" "$out/grid.csv" 2>/dev/null
fi
echo "took $SECONDS s" | tee -a "$out/summary.txt"
