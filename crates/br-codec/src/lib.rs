//! Memcomparable keys and MVCC records, as TiKV stores them.
