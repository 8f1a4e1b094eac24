//! External storage by URL: local, memory, S3, GCS, Azure.
