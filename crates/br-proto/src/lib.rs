//! The published gRPC protocols, with the messages and fields that are used.
