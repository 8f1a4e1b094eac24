//! Log backup and point-in-time recovery: the tool's side and the coordinator's.
