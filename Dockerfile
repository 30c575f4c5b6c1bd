# featstore on an NVIDIA card: JAX with its own CUDA libraries, so that the host needs a driver and no toolkit.
#
#   docker build --tag featstore-gpu .
#   docker run --rm --gpus all --volume DATA:/data:ro --volume CACHE:/cache featstore-gpu extract /data --cache /cache
#
# CACHE has to be writable for user 1000; `--volume COMPILED:/compiled` keeps compiled networks for the next run.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 featstore \
    && install --directory --owner=featstore /cache /compiled

WORKDIR /opt/featstore
COPY constraints.txt pyproject.toml README.md ./
COPY featstore featstore
COPY cli cli
COPY benchmarks benchmarks
RUN python -m pip install --no-cache-dir --constraint constraints.txt '.[gpu]'

ENV JAX_COMPILATION_CACHE_DIR=/compiled \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/featstore
ENTRYPOINT ["featstore"]
CMD ["--help"]
