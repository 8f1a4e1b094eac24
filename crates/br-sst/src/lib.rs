//! Reader of RocksDB block-based tables, without RocksDB.
