"""Model card of a run, and reporting checklists: what is known, and what only the authors can say.

Mitchell, Wu, Zaldivar, Barnes, Vasserman, Hutchinson, Spitzer, Raji & Gebru, Model cards for model reporting, FAT*
2019, doi 10.1145/3287560.3287596. The nine sections and their order are theirs (sections 4.1 to 4.9).

The checklists are those that reviewers ask for, by number, with the answers that runs can give; every other item is
left to the authors. The wording is ours and short; numbers and order are the sources', and the sources' wording
counts.

CLAIM 2024: Tejani, Klontzas, Gatti, Mongan, Moy, Park, Kahn et al., Checklist for Artificial Intelligence in Medical
Imaging (CLAIM): 2024 update, Radiology: Artificial Intelligence 6(4), 2024, doi 10.1148/ryai.240300; 44 items.
TRIPOD+AI: Collins, Moons, Dhiman et al., BMJ 385:e078378, 2024, doi 10.1136/bmj-2023-078378, table 2; 27 items, 52
with their parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.reporting import wording
from featstore.reporting.verdict import findings_sentences
from featstore.reporting.wording import PURPOSE
from featstore.results.fusion import Fusion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from featstore.reporting.run_record import RunRecord

    Answer = Callable[[RunRecord], str]

# Model card

SOURCE = "Mitchell et al. 2019, Model cards for model reporting (doi 10.1145/3287560.3287596)"


MEASURES = (
    "AUC decides; beside it average precision, sensitivity, specificity, balanced accuracy, F1, Brier score,"
    " calibration error and log-loss, each with a 95 % interval from resampled patients."
)


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the card.

    Attributes
    ----------
    title
        As in the source.
    known
        Sentences that the run answers for.
    open
        What is to be filled in by whoever publishes the model.
    """

    title: str
    known: tuple[str, ...]
    open: tuple[str, ...]


def model_card(record: RunRecord) -> tuple[Section, ...]:
    """Model card of a fit, or of the primary fusion of a comparison; nothing of an extraction, which has no model."""
    if record.outcome is None:
        return ()
    return (
        Section(
            "Model details",
            (
                wording.strategy(record),
                wording.networks(record),
                wording.weights(record),
                f"Made with featstore {record.about['libraries'].get('featstore', '')} at {record.about['created']}.",
                *_kept(record),
            ),
            ("Who made it, whom to ask, licence, how to cite it.",),
        ),
        Section("Intended use", (PURPOSE,), ("Whom it is for, and what for; uses that are out of scope.",)),
        Section(
            "Factors",
            ("The run knows classes, and patients and sites where the data set names them; nothing else.",),
            ("Age, sex, scanner, hospital, severity: which matter here, and whether they were looked at.",),
        ),
        Section(
            "Metrics",
            (
                MEASURES,
                wording.operating(record),
            ),
            ("What a false negative and a false positive cost, and which threshold follows.",),
        ),
        Section(
            "Evaluation data",
            (wording.partition(record), wording.disjoint(record), wording.preprocessing(record)),
            ("Where the images come from, and why these.",),
        ),
        Section(
            "Training data",
            (*filter(None, [wording.data(record), wording.trained_on(record)]), wording.views(record)),
            ("How patients were chosen, when and where; who set the labels, and how.",),
        ),
        Section(
            "Quantitative analyses",
            (
                wording.performance(record),
                *filter(None, [wording.calibration(record)]),
                *wording.abstention(record),
                *filter(None, [wording.shortcuts(record)]),
                wording.mistakes(record),
            ),
            ("Results by factor (sex, age, scanner, hospital), and by their combinations.",),
        ),
        Section(
            "Ethical considerations",
            ("The run names no patient; its predictions.csv does, and is for its owner alone.",),
            ("Approval and consent; who could be harmed by wrong answers, and what is done about it.",),
        ),
        Section(
            "Caveats and recommendations",
            (
                "Nothing here was tested on data of another hospital than those in the data set.",
                *findings_sentences(record.outcome.findings),
            ),
            ("What should be tested next, and what users must know.",),
        ),
    )


def _kept(record: RunRecord) -> list[str]:
    if isinstance(record.outcome, Fusion):
        return ["The fitted model is kept in the run's folder; featstore predict uses it."]
    return [
        (
            "A comparison keeps no model: this card is about the procedure of its primary fusion, or of its leader"
            " where no question was asked. featstore fuse fits one."
        )
    ]


# Checklists, and the answers that runs can give

METRICS = (
    "Discrimination: AUC, average precision, sensitivity at fixed specificity and the reverse. Answers: accuracy,"
    " balanced accuracy, sensitivity, specificity, F1. Probabilities: Brier score, calibration error, log-loss;"
    " reliability and decision curve where one class is positive, risk-coverage curve."
)


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a checklist; `known` is empty where it is to be filled in by the authors."""

    number: str
    topic: str
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checklist:
    """A checklist with its source, and its items by section."""

    source: str
    sections: tuple[tuple[str, tuple[Item, ...]], ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, in order."""
        return tuple(item for _, items in self.sections for item in items)


def fill_checklists(records: Sequence[RunRecord]) -> tuple[Checklist, ...]:
    """CLAIM and TRIPOD+AI, pre-filled from the fits and comparisons of a report; nothing without any.

    Where several runs give one answer it stands once; where they differ, each bears the name of its run.
    """
    scored = [record for record in records if record.outcome is not None]
    if not scored:
        return ()
    return (
        _fill(CLAIM_SOURCE, CLAIM, CLAIM_ANSWERS, scored),
        _fill(TRIPOD_SOURCE, TRIPOD, TRIPOD_ANSWERS, scored),
    )


def _fill(
    source: str,
    items: Mapping[str, Mapping[str, str]],
    answers: Mapping[str, Sequence[Answer]],
    records: Sequence[RunRecord],
) -> Checklist:
    return Checklist(
        source,
        tuple(
            (
                section,
                tuple(
                    Item(number, topic, _known(answers.get(number, ()), records))
                    for number, topic in topics.items()
                ),
            )
            for section, topics in items.items()
        ),
    )


def _known(answers: Sequence[Answer], records: Sequence[RunRecord]) -> tuple[str, ...]:
    told = []
    for answer in answers:
        said = [(record.name, answer(record)) for record in records]
        if len({sentence for _, sentence in said}) == 1:
            told.append(said[0][1])
        else:
            told += [f"{name}: {sentence}" for name, sentence in said if sentence]
    return tuple(sentence for sentence in told if sentence)


def _say(sentence: str) -> Answer:
    return lambda _: sentence


_MISSING = _say(
    "Images that could not be read are left out and listed with their reason; no value is imputed."
)
_ENSEMBLE = _say(
    "Networks are fused at feature or at decision level; which, the description of the model says."
)
_CODE = _say(
    "featstore is open source (Apache-2.0); the report's provenance has the command and every digest."
)
_LIMITS = _say(f"{PURPOSE} Tested on no data from outside the data set.")

CLAIM_ANSWERS: dict[str, Sequence[Answer]] = {
    "1": [_say("Transfer learning with frozen convolutional networks; their features are fused.")],
    "9": [wording.preprocessing],
    "12": [_MISSING],
    "19": [wording.partition],
    "20": [wording.disjoint],
    "22": [wording.networks, wording.strategy],
    "23": [wording.software],
    "24": [wording.weights],
    "25": [wording.views, wording.strategy],
    "26": [wording.selection],
    "27": [_ENSEMBLE],
    "28": [_say(METRICS)],
    "29": [wording.uncertainty],
    "32": [wording.internal],
    "35": [wording.data],
    "37": [wording.performance],
    "39": [wording.mistakes],
    "40": [_LIMITS],
    "43": [_CODE],
}
TRIPOD_ANSWERS: dict[str, Sequence[Answer]] = {
    "7": [wording.preprocessing],
    "9b": [wording.networks, wording.predictors],
    "11": [_MISSING],
    "12a": [wording.partition, wording.disjoint],
    "12c": [wording.strategy, wording.views],
    "12e": [_say(METRICS), wording.uncertainty],
    "15": [wording.operating],
    "18f": [_CODE],
    "20a": [wording.data],
    "21": [wording.partition],
    "23a": [wording.performance],
    "26": [_LIMITS],
}


# Items of the checklists, by number

CLAIM_SOURCE = "CLAIM, 2024 update (Tejani et al. 2024, doi 10.1148/ryai.240300)"
TRIPOD_SOURCE = "TRIPOD+AI (Collins et al. 2024, doi 10.1136/bmj-2023-078378)"

CLAIM: dict[str, dict[str, str]] = {
    "Title and abstract": {
        "1": "Named as a study of AI, with the kind of technology",
        "2": "Summary of design, methods, results, conclusions",
    },
    "Introduction": {
        "3": "Background, intended use and role of the AI",
        "4": "Aims, objectives, hypotheses",
    },
    "Methods: study design": {"5": "Prospective or retrospective", "6": "Goal of the study"},
    "Methods: data": {
        "7": "Sources of the data",
        "8": "Inclusion and exclusion",
        "9": "Preprocessing",
        "10": "Subsets that were selected",
        "11": "De-identification",
        "12": "Missing data",
        "13": "Acquisition of the images",
    },
    "Methods: reference standard": {
        "14": "How the reference standard was obtained",
        "15": "Why this reference standard",
        "16": "Who annotated",
        "17": "Annotation of the test set",
        "18": "Variability between and within annotators",
    },
    "Methods: data partitions": {
        "19": "How data were assigned to partitions",
        "20": "Level at which partitions are disjoint",
    },
    "Methods: testing data": {"21": "Intended sample size"},
    "Methods: model": {
        "22": "Description of the model",
        "23": "Software, with versions",
        "24": "Initial parameters",
    },
    "Methods: training": {
        "25": "How it was trained",
        "26": "How the final model was selected",
        "27": "Ensembling",
    },
    "Methods: evaluation": {
        "28": "Metrics",
        "29": "Significance and uncertainty",
        "30": "Robustness or sensitivity analysis",
        "31": "Explainability or interpretability",
        "32": "Evaluation on internal data",
        "33": "Testing on external data",
        "34": "Registration of a clinical trial",
    },
    "Results: data": {
        "35": "Patients or examinations included and excluded",
        "36": "Characteristics of the cases in each partition",
    },
    "Results: model performance": {
        "37": "Performance with its uncertainty",
        "38": "Diagnostic performance and its precision",
        "39": "Analysis of the cases classified wrong",
    },
    "Discussion": {"40": "Limitations", "41": "Implications for practice"},
    "Other information": {
        "42": "Full protocol or further technical details",
        "43": "Availability of software, model and data",
        "44": "Funding and the role of funders",
    },
}

TRIPOD: dict[str, dict[str, str]] = {
    "Title and abstract": {
        "1": "Title: development or evaluation, target population, outcome",
        "2": "Abstract, by the list for abstracts",
    },
    "Introduction": {
        "3a": "Healthcare context, rationale, existing models",
        "3b": "Target population, intended purpose and users",
        "3c": "Known health inequalities",
        "4": "Objectives: development, validation, or both",
    },
    "Methods": {
        "5a": "Sources of the data, and how representative they are",
        "5b": "Dates of the data",
        "6a": "Setting, number and location of centres",
        "6b": "Eligibility of participants",
        "6c": "Treatments received",
        "7": "Preparation and quality checks of the data",
        "8a": "Outcome: definition, time horizon, assessment",
        "8b": "Assessors of the outcome, where it is subjective",
        "8c": "Blinding of the assessment of the outcome",
        "9a": "Choice of the initial predictors",
        "9b": "Definition of all predictors",
        "9c": "Assessors of predictors, where they are subjective",
        "10": "Sample size, and why it suffices",
        "11": "Missing data",
        "12a": "How the data were used and partitioned",
        "12b": "How predictors were handled: rescaling, transformation",
        "12c": "Type of model, all steps of building it, internal validation",
        "12d": "Heterogeneity between clusters, such as hospitals",
        "12e": "Measures and plots of performance, comparison of models",
        "12f": "Updating of the model, such as recalibration",
        "12g": "How predictions were calculated",
        "13": "Class imbalance",
        "14": "Fairness",
        "15": "Output of the model, thresholds and their rationale",
        "16": "Differences between development and evaluation data",
        "17": "Ethical approval and consent",
    },
    "Open science": {
        "18a": "Funding",
        "18b": "Conflicts of interest",
        "18c": "Protocol",
        "18d": "Registration",
        "18e": "Sharing of data",
        "18f": "Sharing of code",
    },
    "Patient and public involvement": {"19": "Involvement in design, conduct, reporting"},
    "Results": {
        "20a": "Flow of participants, with and without the outcome",
        "20b": "Characteristics of participants, overall and by source",
        "20c": "Development and evaluation data compared",
        "21": "Participants and outcome events in each analysis",
        "22": "The full model, so that others can predict with it",
        "23a": "Performance with confidence intervals, also in subgroups",
        "23b": "Heterogeneity of performance between clusters",
        "24": "Results of updating the model",
    },
    "Discussion": {
        "25": "Overall interpretation, with fairness",
        "26": "Limitations",
        "27a": "Poor or unavailable input data in use",
        "27b": "What users must do, and what they must know",
        "27c": "Next steps of research",
    },
}
