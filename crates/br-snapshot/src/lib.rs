//! Snapshot backup and restore: plan, push, split, ingest, checksum.
