"""Results that the commands return and that their runs hold."""
