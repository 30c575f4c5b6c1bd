"""What a person reads: tables and verdicts."""
