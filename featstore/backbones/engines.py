"""Engines: what computes the networks of Keras, TensorFlow or JAX. In one process Keras runs on one of them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from featstore.errors import BackboneError, UnknownNameError, did_you_mean
from featstore.processes import visible_devices

if TYPE_CHECKING:
    from featstore.backbones.jax_backbone import JaxBackbone
    from featstore.backbones.keras_backbone import KerasBackbone

ENGINES = AUTO, TENSORFLOW, JAX = ("auto", "tensorflow", "jax")

_ASK_DEVICES: Final = {
    TENSORFLOW: "import json, tensorflow as tf\n"
    "gpus = tf.config.list_physical_devices('GPU')\n"
    "of = tf.config.experimental.get_device_details\n"
    "print(json.dumps([[of(g).get('device_name', 'GPU'), of(g).get('compute_capability', (0, 0))] for g in gpus]))",
    JAX: "import json, jax\n"
    "gpus = [d for d in jax.devices() if d.platform == 'gpu']\n"
    "of = lambda d: [int(part) for part in str(getattr(d, 'compute_capability', '0.0')).split('.')]\n"
    "print(json.dumps([[d.device_kind, of(d)] for d in gpus]))",
}
"""Python that prints the GPUs of an engine, each with its compute capability."""
_ASK: Final = "import jax; raise SystemExit(0 if any(d.platform == 'gpu' for d in jax.devices()) else 1)"
_SECONDS: Final = 120


def choose_engine(engine: str, *, here: bool = False) -> str:
    """Settle which engine computes.

    Parameters
    ----------
    engine
        ``tensorflow``, ``jax``, or ``auto``: what Keras runs on in this process already; else jax where JAX sees a
        GPU or there is no TensorFlow, and tensorflow otherwise.
    here
        Whether this process will compute.

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    BackboneError
        If it is not installed, or this process is to compute and runs another.
    """
    if engine not in ENGINES:
        raise UnknownNameError(f"There is no engine {engine!r}.", did_you_mean(engine, ENGINES))
    if engine == AUTO and running_here() in ENGINES:
        return str(running_here())
    if engine == AUTO:
        return JAX if _installed(JAX) and (not _installed(TENSORFLOW) or jax_sees_gpu()) else TENSORFLOW
    if not _installed(engine):
        extra = "pip install 'featstore[gpu]'" if engine == JAX else "pip install tensorflow"
        raise BackboneError(f"The engine {engine} is not installed.", extra)
    if here:
        require_free(engine)
    return engine


def running_here() -> str | None:
    """What Keras runs on in this process; None if it has not been imported."""
    return str(sys.modules["keras"].backend.backend()) if "keras" in sys.modules else None


def require_free(engine: str) -> None:
    """Refuse an engine in a process where Keras runs on another.

    Raises
    ------
    BackboneError
        If it does.
    """
    running = running_here()
    if running not in {None, engine}:
        raise BackboneError(
            f"Keras runs on {running} in this process, and the engine {engine} needs it on {engine}.",
            f"Use a process of its own, such as `featstore extract DATA --engine {engine}`.",
        )


def jax_sees_gpu() -> bool:
    """Whether JAX would compute on a GPU here; asked in another process, so that no memory of the card is taken."""
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu" or not visible_devices(os.environ):
        return False
    return _jax_finds_gpu()


@cache
def _jax_finds_gpu() -> bool:
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        asked = subprocess.run(  # noqa: S603  # a constant
            [sys.executable, "-c", _ASK], env=environment, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def installed_engines() -> tuple[str, ...]:
    """Engines that are installed; looks for them, and loads none."""
    return tuple(engine for engine in ENGINES[1:] if _installed(engine))


def visible_gpus(engine: str) -> list[tuple[str, tuple[int, int]]]:
    """GPUs on which an engine would compute, name and compute capability; asked in another process.

    Raises
    ------
    BackboneError
        If the engine does not start there.
    """
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-c", _ASK_DEVICES[engine]]
    remedy = f"pip install --force-reinstall {engine}"
    try:
        asked = subprocess.run(  # noqa: S603  # a constant
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackboneError(f"The engine {engine} does not start: {type(error).__name__}.", remedy) from error
    if asked.returncode:
        told = asked.stderr.strip().splitlines()[-1:] or [f"exit status {asked.returncode}"]
        raise BackboneError(f"The engine {engine} does not start: {told[0][:200]}.", remedy)
    found: list[Any] = json.loads(asked.stdout.strip().splitlines()[-1])
    return [(str(name), (int(major), int(minor))) for name, (major, minor) in found]


def load_backbone(
    engine: str, name: str, weights: str, preprocess: str, batch_size: int, precision: str
) -> KerasBackbone | JaxBackbone:
    """Load a network of Keras on an engine; the other arguments are those of `keras_backbone.load_backbone`."""
    if engine == JAX:
        from featstore.backbones import jax_backbone

        return jax_backbone.load_backbone(name, weights, preprocess, batch_size, precision)
    from featstore.backbones import keras_backbone

    return keras_backbone.load_backbone(name, weights, preprocess, batch_size, precision)


def _installed(engine: str) -> bool:
    return engine in sys.modules or importlib.util.find_spec(engine) is not None
