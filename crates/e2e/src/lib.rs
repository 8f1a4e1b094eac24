//! Nothing is here but the tests of this crate: whole clusters over real sockets, with load,
//! backups, restores and other people's clients.
