//! Workloads with a model that knows every table's content at every timestamp.
