"""What a report must never be read without."""

from __future__ import annotations

PURPOSE = "Research only. featstore is no medical device, and nothing it computes may decide about a patient."
SHORTCUTS = (
    "A good score does not mean that the networks saw the disease: scanners, markers, cropping and compression can"
    " give a label away. The audit guesses the label from file sizes and grey levels alone; compare its AUC."
)
LIMITS = (
    PURPOSE,
    SHORTCUTS,
    "It does not mean that the model works elsewhere: another hospital is another population.",
    "An interval tells what other patients like these would change: nothing of wrong labels or another hospital.",
    "The best of many was picked on the images it is scored on. Quote the guarded value, not the highest.",
)
