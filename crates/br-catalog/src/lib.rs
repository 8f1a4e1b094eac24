//! TiDB's schemas in a cluster: read at a timestamp, created by writing meta keys.
