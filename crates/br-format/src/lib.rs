//! Everything that lies on external storage, as bytes and as types.
