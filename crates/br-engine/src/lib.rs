//! The storage engine over RocksDB.
