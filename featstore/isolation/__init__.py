"""Files of strangers are read in a process of their own: a defect of a library there costs one file, not the run."""
