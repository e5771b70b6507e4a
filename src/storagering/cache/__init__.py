"""The node-local cache: chunk stores, manifests, building and publishing datasets."""
