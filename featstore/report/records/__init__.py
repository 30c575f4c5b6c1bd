"""Run folders read back for a report: checked, and trusted in nothing."""
