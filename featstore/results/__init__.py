"""What the commands return, and what their runs hold."""
