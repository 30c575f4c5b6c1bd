"""The public functions behind the commands, one file per command."""
