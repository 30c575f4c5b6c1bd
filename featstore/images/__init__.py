"""From files to pixels: manifests, decoding, views, and generated phantoms."""
