//! The published gRPC protocols, with the messages and fields that are used.
//!
//! The `.proto` files of this crate carry the published packages, names and numbers; each package
//! is a module. Fields that nobody here needs may be missing: what a peer sends in them is skipped.
//! Backup files are complete, so that nothing of them is lost when they are written anew.

macro_rules! packages {
    ($($(#[$doc:meta])* $name:ident = $package:literal;)*) => {$(
        $(#[$doc])*
        #[allow(
            missing_docs,
            unreachable_pub,
            unused_qualifications,
            clippy::all,
            clippy::unwrap_used,
            rustdoc::all,
            reason = "generated"
        )]
        pub mod $name {
            tonic::include_proto!($package);
        }
    )*};
}

packages! {
    /// Stores, regions, peers.
    metapb = "metapb";
    /// Errors of a region.
    errorpb = "errorpb";
    /// The placement driver, PD.
    pdpb = "pdpb";
    /// Keyspaces of API v2.
    keyspacepb = "keyspacepb";
    /// Requests and answers of the key-value service.
    kvrpcpb = "kvrpcpb";
    /// The key-value service of a store.
    tikvpb = "tikvpb";
    /// Computation on the store.
    coprocessor = "coprocessor";
    /// Table checksums (proto2).
    tipb = "tipb";
    /// Backup: service, backup files, log-backup files.
    backup = "backup";
    /// Taking SST files into a store.
    import_sstpb = "import_sstpb";
    /// Encryption methods and keys.
    encryptionpb = "encryptionpb";
    /// Flush and progress of log backup.
    logbackup = "logbackup";
    /// PD's own key-value service.
    meta_storagepb = "meta_storagepb";
    /// Who waits for whom.
    deadlock = "deadlock";
    /// Replication modes.
    replication_modepb = "replication_modepb";
    /// Kinds of change of a raft group.
    eraftpb = "eraftpb";
    /// etcd v3, as far as it is spoken on PD's port.
    etcdserverpb = "etcdserverpb";
    /// Keys and events of etcd.
    mvccpb = "mvccpb";
    /// gRPC's standard health check.
    health = "grpc.health.v1";
}

mod redacted;

/// The encoded `google.protobuf.FileDescriptorSet` of all packages, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
mod tests;
