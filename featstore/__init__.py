"""Extract once, fuse many times."""
