use std::{io, net::SocketAddr, path::PathBuf};

use br_store::engine::EngineError;
use br_types::{Classify, Kind, StoreId};

use super::lock_file::LockFileError;
use crate::pd::{PdError, meta_kv::MetaError, regions::RegionsError};

/// Why a cluster did not start or did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Options that cannot be.
    #[error("{0}")]
    Options(String),
    /// The data folder holds another kind of cluster.
    #[error("the data folder {} holds a cluster {held}, not {asked}", path.display())]
    Mismatch {
        /// The folder.
        path: PathBuf,
        /// What it holds.
        held: String,
        /// What the options ask for.
        asked: String,
    },
    /// Another process uses the data folder.
    #[error(transparent)]
    Lock(#[from] LockFileError),
    /// A folder or file.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Security(#[from] br_cluster::SecurityError),
    /// A port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No store of that id.
    #[error("there is no store {0}")]
    NoStore(StoreId),
    /// PD.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// PD's storage.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The table of regions.
    #[error(transparent)]
    Regions(#[from] RegionsError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Classify for ClusterError {
    fn kind(&self) -> Kind {
        match self {
            ClusterError::Options(_)
            | ClusterError::Mismatch { .. }
            | ClusterError::Io { .. }
            | ClusterError::NoStore(_) => Kind::Invalid,
            ClusterError::Listen { .. } => Kind::Conflict,
            ClusterError::Lock(error) => error.kind(),
            ClusterError::Pd(error) => error.kind(),
            ClusterError::Meta(error) => error.kind(),
            ClusterError::Regions(error) => error.kind(),
            ClusterError::Engine(error) => error.kind(),
            ClusterError::Security(error) => error.kind(),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            ClusterError::Listen { .. } => {
                Some("Choose another port, or port 0 for any that is free.".into())
            }
            ClusterError::Mismatch { .. } => {
                Some("Start it as it was, or choose another data folder.".into())
            }
            ClusterError::Lock(error) => error.next_step(),
            ClusterError::Security(error) => error.next_step(),
            _ => None,
        }
    }
}
