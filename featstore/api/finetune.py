"""`finetune`: train the last layers of a backbone on the training images, and keep the new weights."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import runs
from featstore.arguments import public
from featstore.backbones import trainable
from featstore.backbones.weights import choice_for
from featstore.errors import AuditError, UsageError
from featstore.extraction.finetune_loop import TrainingBatches, train, unreadable
from featstore.extraction.networks import Networks, training_records
from featstore.extraction.pipeline import refuse_undeclared_range
from featstore.findings import ordered
from featstore.fusion.linear import fit_logistic
from featstore.fusion.strategies.concat_logreg import DEFAULT_C
from featstore.image_facts import known_images, recognise
from featstore.images.manifest import require_no_errors, require_two_classes
from featstore.images.reading import decoder_version
from featstore.images.recipe import parse_recipe
from featstore.images.scan import ScanOptions, scan
from featstore.results.extraction import Finetuning
from featstore.runs import data_digest, write_run
from featstore.serialization import PRIVATE_FILE, digest_file
from featstore.splits import TrainValHoldout, seen_or_same_group, split_for_finetuning
from featstore.store.training_record import HASHED, TrainingRecord, salt_of, write_to_weights
from featstore.types import Decoding, make_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from featstore.backbones.trainable import TrainableBackbone
    from featstore.types import Features


DEFAULT_RECIPE = "mild"


@public
@runs.writes_run
def finetune(
    data: str | Path,
    *,
    backbone: str,
    weights: Mapping[str, str] | None = None,
    preprocess: str = "official",
    recipe: str = DEFAULT_RECIPE,
    epochs: int = 10,
    patience: int = 3,
    learning_rate: float = 1e-5,
    unfreeze: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    test_size: float = 0.25,
    split_seed: int = 0,
    value_range: tuple[float, ...] | None = None,
    out: str | Path,
    overwrite: bool = False,  # noqa: ARG001  # `writes_run` looks at it
    progress: bool = False,
    **reading: Unpack[ScanOptions],
) -> Finetuning:
    """Fine-tune a backbone on the training side of a data set; the weights go back through `featstore.extract`.

    The data set's own training split is learned from; where it has no splits, all but what `featstore.fuse` holds out
    with the same `test_size` and `split_seed`. A fifth of that side, in whole groups, tells when to stop. The new
    file carries the ids of all these images: `featstore.fuse` and `featstore.compare` will not score it on them.

    A linear head is fitted first, on the frozen features; then head and last layers learn together (Adam, classes
    balanced, batch norms in inference mode, dropout before the head). The head is thrown away.

    Parameters
    ----------
    data
        A folder or a CSV manifest, as for `featstore.extract`.
    backbone
        Catalogue name.
    weights, preprocess, value_range
        As for `featstore.extract`. Weights that were tuned before may be tuned on, on the same split.
    recipe
        In epoch e each image is shown in the view (recipe, seed e).
    epochs, patience
        At most so many epochs, and so many without a better validation loss.
    learning_rate
        Of Adam.
    unfreeze
        How many of the last layers learn, batch norms not counted; None for a quarter of those with weights.
    batch_size
        Images per step.
    seed
        Of validation groups, order and dropout. Equal arguments give equal bytes on one machine.
    test_size, split_seed
        As for `featstore.fuse`.
    out, overwrite
        Folder of the run; the weights become ``<out>/<backbone>.weights.h5``.
    progress
        Show a bar on stderr.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    AuditError
        If the data set would give a false answer, has no group to spare for validation, or `weights` have learned
        from images that are held out here.
    UsageError
        If an option is out of range.
    WeightsError
        If weights are absent, unreachable, or not those of the network.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> tuned = featstore.finetune(
    ...     data, backbone="EfficientNetLite0", unfreeze=1, epochs=1, out="runs/finetune", overwrite=True
    ... )
    >>> tuned.epochs, sorted(tuned.sizes)
    (1, ['test', 'trained', 'validated'])
    """
    started = perf_counter()
    folder = Path(out)
    _require_options(epochs, patience, learning_rate, batch_size)
    recipe = str(parse_recipe(recipe))
    trainable.require_trainable(backbone)
    start = Networks(weights or {}, preprocess).spec(backbone, fetch=True)
    manifest = scan(Path(data), **reading)
    require_no_errors(manifest)
    decoding = Decoding(decoder_version(), value_range=value_range)
    refuse_undeclared_range(manifest.records, decoding)
    bad = unreadable(manifest.records, decoding)
    require_two_classes(manifest, {image: row.reason for image, row in bad.items()})
    split = split_for_finetuning(
        (r for r in manifest.records if r.id not in bad), test_size, split_seed, seed
    )
    before = training_records([start], weights or {}).get(backbone)
    if before is not None:
        _require_unseen(split, before, decoding, has_groups=manifest.has_groups)
    network = trainable.TrainableBackbone(
        backbone,
        choice_for(backbone, weights or {}),
        preprocess,
        batch_size=batch_size,
        unfreeze=unfreeze,
        learning_rate=learning_rate,
        seed=seed,
    )
    training_batches, validation = (
        _training_batches(split, rows, decoding, network) for rows in (split.trained, split.validated)
    )
    with _bar(epochs * len(training_batches), show=progress) as bar:
        training = train(
            network,
            training_batches,
            validation,
            recipe,
            fit_head=fit_head,
            epochs=epochs,
            patience=patience,
            seed=seed,
            progress=bar.update,
        )
    record = _training_record(split, before, decoding, has_groups=manifest.has_groups)
    runs.clear(folder)
    path = _write(network, folder / f"{backbone}{trainable.SUFFIX}", record)
    options = {
        "preprocess": preprocess, "recipe": recipe, "epochs": epochs, "patience": patience,
        "learning_rate": learning_rate, "unfreeze": unfreeze, "batch_size": batch_size, "seed": seed,
        "test_size": test_size, "split_seed": split_seed, "value_range": value_range,
    }  # fmt: skip
    result = Finetuning(
        run=str(folder),
        backbone=backbone,
        weights=str(path),
        digest=f"{HASHED}{digest_file(path)}",
        started_from=start.weights,
        options=options,
        classes={name: int((split.y == c).sum()) for c, name in enumerate(split.classes)},
        sizes=split.sizes,
        layers=network.layers,
        of_layers=network.of_layers,
        epochs=training.epochs,
        best_epoch=training.best_epoch,
        before=training.before,
        after=training.after,
        history=training.history,
        bad=tuple(
            sorted(
                [(str(r.path), bad[r.id].reason, bad[r.id].detail) for r in manifest.records if r.id in bad]
                + [(str(q.path), q.reason, q.detail) for q in manifest.unreadable]
            )
        ),
        findings=ordered(manifest.findings),
        seconds=round(perf_counter() - started, 3),
    )
    write_account(folder, result, split)
    return result


def _require_options(epochs: int, patience: int, learning_rate: float, batch_size: int) -> None:
    for name, value in (("--epochs", epochs), ("--patience", patience), ("--batch-size", batch_size)):
        if value < 1:
            raise UsageError(f"{name} {value} is out of range.", "Use 1 or more.")
    if not 0 < learning_rate < 1:
        raise UsageError(
            f"--learning-rate {learning_rate} is out of range.", "Use a small positive number such as 1e-5."
        )


def _require_unseen(
    split: TrainValHoldout, before: TrainingRecord, decoding: Decoding, *, has_groups: bool
) -> None:
    """Weights that are tuned on must not have met what is scored later, nor what chooses the epoch now."""
    scored = np.concatenate([*split.held_out.values()])
    apart = np.concatenate([scored, split.validated])
    asked = {"at all": before.known, "trained": before.known_trained}
    found = recognise(split.records, asked, decoding, has_groups=has_groups)
    known = int(seen_or_same_group(split, found["at all"])[scored].sum())
    known += int(seen_or_same_group(split, found["trained"])[split.validated].sum())
    if known:
        raise AuditError(
            f"The weights have learned from {known} of the {len(apart)} images held out here or their patients.",
            "Give --test-size, --split-seed and --seed of the earlier `featstore finetune`, or other --weights; where"
            " other patients only bear the same names, give them other ones.",
        )


def _bar(images: int, *, show: bool) -> Any:  # noqa: ANN401
    from tqdm import tqdm

    return tqdm(total=images, unit="img", desc="finetune", disable=not show, smoothing=0.05)


def _training_batches(
    split: TrainValHoldout, rows: NDArray[np.intp], decoding: Decoding, network: TrainableBackbone
) -> TrainingBatches:
    """Images of one side, each class weighing as much as any other."""
    factors = len(split.trained) / (len(split.classes) * np.bincount(split.y[split.trained]))
    return TrainingBatches(
        tuple(split.records[row] for row in rows),
        split.y[rows].astype(np.int32),
        factors[split.y[rows]].astype(np.float32),
        decoding,
        network.input_size,
        network.batch_size,
    )


def fit_head(features: Features, y: NDArray[np.intp]) -> trainable.LinearHead:
    """Logistic regression on the frozen features: featstore's own linear probe.

    Its bias is moved from the classes' frequencies to equal ones (King & Zeng 2001), as the batches are balanced.
    """
    model = fit_logistic(features, y, make_blocks({"frozen": features.shape[1]}), DEFAULT_C)
    kernel, bias = model.coef.T, model.intercept
    if kernel.shape[1] == 1:
        kernel, bias = np.hstack([-kernel / 2, kernel / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    return trainable.LinearHead(model.mean, model.scale, kernel, bias - np.log(np.bincount(y) / len(y)))


def _training_record(
    split: TrainValHoldout, before: TrainingRecord | None, decoding: Decoding, *, has_groups: bool
) -> TrainingRecord:
    """Everything that the new weights know, with what those before knew; their digest is not known yet."""
    salt = (before.salt if before else "") or salt_of(record.id for record in split.records)
    trained, validated = (
        known_images([split.records[row] for row in rows], decoding, has_groups=has_groups, salt=salt)
        for rows in (split.trained, split.validated)
    )
    if before is not None:
        trained, validated = trained | before.known_trained, validated | before.known_validated
    return TrainingRecord.from_images("", trained, validated)


def _write(network: TrainableBackbone, path: Path, record: TrainingRecord) -> Path:
    """Put the weights in their place whole or not at all, with the digests of all images that they know inside."""
    draft = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        network.write_weights(draft)
        write_to_weights(draft, record)
        draft.chmod(PRIVATE_FILE)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
        for other in path.parent.glob(f"*{trainable.SUFFIX}"):  # of a run that this one replaces
            if other != path:
                other.unlink()
    except OSError as error:
        raise runs.unwritable(path.parent, error) from error
    finally:
        draft.unlink(missing_ok=True)
    return path


ELSEWHERE = frozenset({"run", "weights", "bad", "findings"})
"""Told in another form, or naming files: the summary names them."""
MEASURED = frozenset({"before", "after", "history"})
"""Kept in ``metrics.json``."""


def write_account(folder: Path, result: Finetuning, split: TrainValHoldout) -> None:
    """Keep in the run folder, as `featstore.runs.clear` left it, what was done, without paths."""
    document = {k: v for k, v in result.to_json().items() if k not in ELSEWHERE}
    write_run(
        folder,
        {
            "kind": "finetune",
            "data_sha256": data_digest(split.records),
            **{k: document.pop(k) for k in list(document) if k not in MEASURED},
            "findings": [finding.to_json(examples=False) for finding in result.findings],
            "quarantined": dict(Counter(reason for _, reason, _ in result.bad)),
            "trained": split.ids(split.trained),
            "validated": split.ids(split.validated),
        },
        document,
    )
