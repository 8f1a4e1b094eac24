//! Checks of the tree itself; all of it is in `tests/tidy.rs`.
