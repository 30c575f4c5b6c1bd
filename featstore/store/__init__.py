"""The feature store: immutable HDF5 shards named by the hash of their bytes."""
