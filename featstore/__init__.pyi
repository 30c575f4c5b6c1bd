# Everything that a user of featstore calls, gets or catches, and where it lives; loaded when first asked for.

from .api.bench import bench
from .api.cache import compact, drift, gc, inventory, usage, verify
from .api.check import check
from .api.compare import compare
from .api.convert import convert
from .api.demo import demo
from .api.doctor import doctor
from .api.exchange import export_features, import_features
from .api.explain import explain
from .api.extract import extract
from .api.finetune import finetune
from .api.fuse import fuse
from .api.plan import plan
from .api.predict import predict
from .api.report import write_report
from .api.split import split
from .backbones.weights import BackboneSummary, backbones
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
from .exchange.export import Exported
from .exchange.importing import Imported
from .findings import Finding
from .fusion.blocks import Block
from .fusion.strategies import StrategySummary, strategies
from .images.manifest import Manifest, Quarantined
from .images.recipe import RecipeSummary, recipes
from .images.scan import ScanOptions, scan
from .matrix import FeatureMatrix, Source, load_matrix
from .phantom import make_phantoms
from .reporting.figures.style import Picture
from .reproduction.paper import paper
from .results.comparison import (
    BackboneCost,
    BackboneValue,
    Candidate,
    CandidateResult,
    Comparison,
    NestedSelection,
    PairwiseDifference,
    ParetoPoint,
    PlannedDifference,
    PrimaryQuestion,
    Protocol,
    ScoresByImage,
    SelectionBias,
    ShortcutResult,
    TestResult,
    ViewPoint,
)
from .results.document import Result
from .results.extraction import (
    BackboneDrift,
    Bench,
    Check,
    ConvertedImages,
    DataSplit,
    Drift,
    Extraction,
    Finetuning,
    KeySummary,
    LossAndAccuracy,
    Rate,
    SplitPart,
    ThroughputSummary,
)
from .results.fusion import (
    Counts,
    Explanation,
    Explanations,
    Fusion,
    MeanOfPages,
    MetricChange,
    OperatingFields,
    Prediction,
    Predictions,
    SingleNetwork,
    ToleranceFields,
    WarmStart,
)
from .results.machine import CacheHealth, MachineReport, NetworkWeights, Problem
from .results.paper import Claim, Conversion, Demonstration, Leak, PaperNetwork, Reproduction, SavedFigure
from .results.plan import Looks, Plan, Planning
from .results.scores import (
    CalibrationError,
    Coefficient,
    Curves,
    MatrixFields,
    MetricEstimate,
    NetBenefit,
    Recalibration,
    Reliability,
    RiskCoverage,
    Score,
    VarianceComponents,
)
from .store.cleanup import Compacted, Compaction, Garbage, GarbageCollection
from .store.verify import InventoryEntry, LostRows, Repair, Verification
from .tables import Rows
from .types import BackboneSpec, Decoding, ImageRecord, View

__version__: str

__all__ = [
    "AbsentWeightsError",
    "AuditError",
    "BackboneCost",
    "BackboneDrift",
    "BackboneError",
    "BackboneSpec",
    "BackboneSummary",
    "BackboneValue",
    "BadImageError",
    "Bench",
    "Block",
    "CacheHealth",
    "CalibrationError",
    "Candidate",
    "CandidateResult",
    "Check",
    "Claim",
    "Coefficient",
    "Compacted",
    "Compaction",
    "Comparison",
    "Conversion",
    "ConvertedImages",
    "Counts",
    "Curves",
    "DataSplit",
    "Decoding",
    "Demonstration",
    "Drift",
    "Explanation",
    "Explanations",
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
    "Looks",
    "LossAndAccuracy",
    "LostRows",
    "MachineReport",
    "Manifest",
    "ManifestError",
    "MatrixFields",
    "MeanOfPages",
    "MetricChange",
    "MetricEstimate",
    "MissingFeaturesError",
    "NestedSelection",
    "NetBenefit",
    "NetworkWeights",
    "NonFiniteFeaturesError",
    "OperatingFields",
    "OutOfMemoryError",
    "PairwiseDifference",
    "PaperNetwork",
    "ParetoPoint",
    "Picture",
    "Plan",
    "PlannedDifference",
    "Planning",
    "Prediction",
    "Predictions",
    "PrimaryQuestion",
    "Problem",
    "Protocol",
    "Quarantined",
    "Rate",
    "Recalibration",
    "RecipeError",
    "RecipeSummary",
    "RefusedFileError",
    "Reliability",
    "Repair",
    "Reproduction",
    "Result",
    "RiskCoverage",
    "Rows",
    "RunError",
    "SavedFigure",
    "ScanOptions",
    "Score",
    "ScoresByImage",
    "SelectionBias",
    "ShardCorruptError",
    "ShortcutResult",
    "SingleNetwork",
    "Source",
    "SplitPart",
    "StoreError",
    "StrategySummary",
    "TestResult",
    "ThroughputSummary",
    "ToleranceFields",
    "UnknownNameError",
    "UsageError",
    "VarianceComponents",
    "Verification",
    "View",
    "ViewPoint",
    "WarmStart",
    "WeightsError",
    "WorkerLostError",
    "backbones",
    "bench",
    "check",
    "compact",
    "compare",
    "convert",
    "demo",
    "doctor",
    "drift",
    "explain",
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
    "plan",
    "predict",
    "recipes",
    "scan",
    "split",
    "strategies",
    "usage",
    "verify",
    "write_report",
]
