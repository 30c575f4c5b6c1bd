#!/bin/sh
# Wheels for a machine with a card and no network, whose Python 3.12 on x86-64 Linux has JAX with CUDA, NumPy, SciPy,
# h5py, Pillow, scikit-learn, numba, joblib, tqdm, rich and lazy-loader: what `benchmarks/gpu.py` needs beside them.
#
# Usage, here:   sh benchmarks/gpu_wheels.sh FOLDER        (3 MB)
#        there:  python3 -m pip install --no-index --no-deps --target SITE FOLDER/*.whl
#                PYTHONPATH=SITE python3 benchmarks/gpu.py
set -eu
folder=${1:?"Say where the wheels shall be: sh benchmarks/gpu_wheels.sh FOLDER"}
here=$(dirname "$0")
mkdir -p "$folder"
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --dest "$folder" --constraint "$here/../constraints.txt" keras msgspec namex optree
kilobytes=$(du -sk "$folder" | cut -f1)
test "$kilobytes" -le 65536 || { echo "$folder holds $kilobytes kB, more than 64 MiB: use an empty folder." >&2; exit 1; }
du -sh "$folder"
