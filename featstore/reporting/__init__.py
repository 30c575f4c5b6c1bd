"""Reporting: tables, verdicts, figures and the HTML report."""
