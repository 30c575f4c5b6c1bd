"""What ``run.json`` and ``metrics.json`` of each kind of run must look like to be reported."""

from __future__ import annotations

from featstore.findings import CATALOGUE
from featstore.report.records.shape import (
    anything,
    count,
    each,
    fields,
    flag,
    maybe,
    number,
    one_of,
    row,
    share,
    table,
    text,
)

INTERVAL = maybe(row(number, number))
BACKBONE = fields(
    name=text,
    weights=text,
    input_size=count,
    preprocess=text,
    dimension=count,
    precision=text,
    pooling=text,
    revision=count,
)
VIEW = fields(recipe=text, seed=count)
DECODING = fields(decoder=text, interpolation=text, value_range=maybe(row(number, number)), revision=count)
PROVENANCE = fields(
    kind=text, created=text, python=text, machine=text, libraries=table(text), files=table(text)
)
"""What every run has."""

MATRIX = fields(
    data_sha256=text,
    images=count,
    quarantined=count,
    groups=count,
    has_groups=flag,
    classes=table(count),
    positive=maybe(text),
    backbones=each(BACKBONE),
    views=each(VIEW),
    decoding=DECODING,
)
OPERATING = fields(
    calibration=maybe(fields(method=text)),
    threshold=maybe(number),
    sensitivity=maybe(share),
    positive=maybe(count),
)
CURVES = fields(
    risk_coverage=fields(coverage=each(share), risk=each(share), aurc=number),
)
CALIBRATION_ERROR = fields(ece=maybe(share), expected=maybe(share), images=count)
COEFFICIENT = fields(value=maybe(number), interval=INTERVAL)
LATER_CURVES = {
    "calibration_error": CALIBRATION_ERROR,
    "recalibration": fields(slope=COEFFICIENT, intercept=COEFFICIENT, why=text),
}
"""Parts that runs of earlier versions lack."""
TWO_CLASS_CURVES = {
    "decision": fields(threshold=each(share), net_benefit=each(number), treat_all=each(number)),
    "calibration": fields(predicted=each(share), observed=each(share), images=each(count)),
}
CHANGE = fields(before=maybe(number), after=maybe(number), difference=maybe(number), interval=INTERVAL)
FUSION = fields(
    strategy=text,
    options=table(anything),
    matrix=MATRIX,
    sizes=table(count),
    operating=OPERATING,
    scores=table(table(fields(value=maybe(number), interval=INTERVAL))),
    curves=table(CURVES),
    history=maybe(table(each(number))),
    continuation=maybe(
        fields(run=text, frozen=each(text), held_out_then=maybe(flag), changes=table(table(CHANGE)))
    ),
)

ESTIMATE = fields(mean=maybe(number), deviation=maybe(number), interval=INTERVAL, folds=each(maybe(number)))
CONTESTANT = fields(
    name=text,
    strategy=text,
    backbones=each(text),
    views=text,
    test_views=text,
    chosen=maybe(each(each(text))),
    metrics=table(ESTIMATE),
    spread=fields(patients=maybe(number), folds=maybe(number), training=maybe(number)),
    curves=CURVES,
)
DUEL = fields(
    a=text,
    b=text,
    metric=text,
    delta=number,
    interval=INTERVAL,
    p=share,
    verdict=one_of("a_better", "b_better", "cannot_tell"),
    needed=maybe(count),
    tests=table(fields(p=maybe(share), adjusted=maybe(share))),
)
WINNER = fields(
    name=text,
    of=count,
    metric=text,
    naive=number,
    guarded=number,
    interval=INTERVAL,
    optimism=number,
    picked=share,
)
VIEW_POINT = fields(contestant=text, metric=text, views=count, mean=maybe(number), interval=INTERVAL)
PRICE = fields(
    name=text,
    milliseconds=maybe(number),
    basis=text,
    bytes=count,
    alone=number,
    shapley=number,
    caruana=number,
    log_me=number,
    h_score=number,
)
ECONOMICS = fields(
    metric=text,
    prices=each(PRICE),
    exact=flag,
    front=each(fields(backbones=each(text), milliseconds=number, score=number)),
    redundancy=each(each(number)),
    agreement=table(maybe(number)),
)
PROTOCOL = fields(
    folds=count, repeats=count, fold_seed=count, calibrate=maybe(text), sensitivity=maybe(share)
)
FINDING = fields(
    code=one_of(*CATALOGUE),
    message=text,
    count=count,
    value=maybe(number),
    interval=INTERVAL,
    accepted=flag,
    remedy=text,
)
FINDINGS = each(FINDING)
"""What older runs lack."""
SHORTCUTS = each(fields(name=text, metrics=table(ESTIMATE)))
HELD_OUT_SHORTCUTS = table(table(table(fields(value=maybe(number), interval=INTERVAL))))
COMPARISON = fields(
    matrix=MATRIX,
    protocol=PROTOCOL,
    contestants=each(CONTESTANT),
    comparisons=each(DUEL),
    winner=maybe(WINNER),
    view_curve=each(VIEW_POINT),
    economics=maybe(ECONOMICS),
)

CELL = fields(backbone=text, weights=text, recipe=text, seed=count, stored=count, missing=count)
EXTRACTION = fields(
    data_sha256=text,
    images=count,
    quarantined=table(count),
    backbones=each(BACKBONE),
    views=each(VIEW),
    decoding=maybe(DECODING),
    cells=each(CELL),
    computed=count,
    missing=count,
    stored=count,
    seconds=number,
    phases=table(number),
    idle=number,
    announced_bytes=count,
    measured_bytes=count,
    precision=text,
    batch_size=count,
)

SCORE = fields(value=maybe(number), interval=INTERVAL)
REPRODUCTION = fields(
    networks=each(
        fields(
            name=text,
            label=text,
            in_paper=flag,
            digest=maybe(text),
            reason=text,
            input_size=count,
            dimension=count,
        )
    ),
    sides=table(table(table(count))),
    floor=share,
    heads=table(SCORE),
    fusions=table(table(SCORE)),
    claims=each(
        fields(name=text, title=text, accuracy=SCORE, images=maybe(count), patients=maybe(count), basis=text)
    ),
    reasons=each(text),
    figures=each(
        fields(number=maybe(count), file=text, title=text, alt=text, caption=text, shows_images=flag)
    ),
    steps=table(text),
    computed=count,
    stored=count,
)
REPRODUCED = fields(arguments=fields(data_sha256=text))
"""``run.json`` of a reproduction, beside `PROVENANCE`."""
