# Everything that a user of featstore calls, gets or catches, and where it lives; loaded when first asked for.

from .api.bench import bench
from .api.cache import drift, gc
from .api.check import check
from .api.compare import compare
from .api.demo import demo
from .api.extract import extract
from .api.finetune import finetune
from .api.fuse import fuse
from .api.predict import predict
from .api.report import write_report
from .errors import (
    AbsentWeightsError,
    AuditError,
    BackboneError,
    BadImageError,
    FeatstoreError,
    InterruptionError,
    ManifestError,
    MissingFeaturesError,
    NonFiniteFeaturesError,
    OutOfMemoryError,
    RecipeError,
    RefusedFileError,
    RunError,
    ShardCorruptError,
    StoreError,
    UnknownNameError,
    UsageError,
    WeightsError,
    WorkerLostError,
)
from .evaluation.calibration import OperatingPointRequest
from .evaluation.estimates import CandidateScores
from .evaluation.intervals import SampleSize
from .exchange.export import Exported, export_features
from .exchange.importing import Imported, import_features
from .findings import Finding
from .fusion.blocks import Block
from .images.manifest import Manifest, Quarantined
from .images.scan import ScanOptions, scan
from .matrix import FeatureMatrix, Source, load_matrix
from .phantom import make_phantoms
from .reproduction.paper import paper
from .results.comparison import (
    BackboneCost,
    BackboneValue,
    Candidate,
    Comparison,
    NestedSelection,
    PairwiseDifference,
    ParetoPoint,
    SelectionBias,
    TestResult,
    ViewPoint,
)
from .results.extraction import (
    BackboneDrift,
    Bench,
    Check,
    Drift,
    Extraction,
    Finetuning,
    KeySummary,
    LossAndAccuracy,
    Rate,
    ThroughputSummary,
)
from .results.fusion import Counts, Fusion, MeanOfPages, MetricChange, Prediction, Predictions, WarmStart
from .results.paper import Claim, Conversion, Demonstration, Leak, PaperNetwork, Reproduction, SavedFigure
from .results.scores import MetricEstimate, Score, VarianceComponents
from .store.cleanup import Compacted, Compaction, Garbage, GarbageCollection, compact
from .store.inventory import InventoryEntry, inventory, usage
from .store.verify import LostRows, Repair, Verification, verify
from .types import BackboneSpec, Decoding, ImageRecord, View

__all__ = [
    "AbsentWeightsError",
    "AuditError",
    "BackboneCost",
    "BackboneDrift",
    "BackboneError",
    "BackboneSpec",
    "BackboneValue",
    "BadImageError",
    "Bench",
    "Block",
    "Candidate",
    "CandidateScores",
    "Check",
    "Claim",
    "Compacted",
    "Compaction",
    "Comparison",
    "Conversion",
    "Counts",
    "Decoding",
    "Demonstration",
    "Drift",
    "Exported",
    "Extraction",
    "FeatstoreError",
    "FeatureMatrix",
    "Finding",
    "Finetuning",
    "Fusion",
    "Garbage",
    "GarbageCollection",
    "ImageRecord",
    "Imported",
    "InterruptionError",
    "InventoryEntry",
    "KeySummary",
    "Leak",
    "LossAndAccuracy",
    "LostRows",
    "Manifest",
    "ManifestError",
    "MeanOfPages",
    "MetricChange",
    "MetricEstimate",
    "MissingFeaturesError",
    "NestedSelection",
    "NonFiniteFeaturesError",
    "OperatingPointRequest",
    "OutOfMemoryError",
    "PairwiseDifference",
    "PaperNetwork",
    "ParetoPoint",
    "Prediction",
    "Predictions",
    "Quarantined",
    "Rate",
    "RecipeError",
    "RefusedFileError",
    "Repair",
    "Reproduction",
    "RunError",
    "SampleSize",
    "SavedFigure",
    "ScanOptions",
    "Score",
    "SelectionBias",
    "ShardCorruptError",
    "Source",
    "StoreError",
    "TestResult",
    "ThroughputSummary",
    "UnknownNameError",
    "UsageError",
    "VarianceComponents",
    "Verification",
    "View",
    "ViewPoint",
    "WarmStart",
    "WeightsError",
    "WorkerLostError",
    "bench",
    "check",
    "compact",
    "compare",
    "demo",
    "drift",
    "export_features",
    "extract",
    "finetune",
    "fuse",
    "gc",
    "import_features",
    "inventory",
    "load_matrix",
    "make_phantoms",
    "paper",
    "predict",
    "scan",
    "usage",
    "verify",
    "write_report",
]
