"""The item lists that reviewers ask for, by number. The wording is ours and short; the source's counts.

CLAIM 2024: Tejani, Klontzas, Gatti, Mongan, Moy, Park, Kahn et al., Checklist for Artificial Intelligence in Medical
Imaging (CLAIM): 2024 update, Radiology: Artificial Intelligence 6(4), 2024, doi 10.1148/ryai.240300; 44 items.
TRIPOD+AI: Collins, Moons, Dhiman et al., BMJ 385:e078378, 2024, doi 10.1136/bmj-2023-078378, table 2; 27 items, 52
with their parts. Numbers and order are theirs.
"""

from __future__ import annotations

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
