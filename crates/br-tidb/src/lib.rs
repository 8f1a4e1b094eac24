//! What TiDB means by its bytes: table and meta keys, schema JSON, rows, table filters.
