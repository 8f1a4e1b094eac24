use std::{fs, path::PathBuf};

use br_cluster::{ClientIdentity, Cluster, ClusterConfig, Security};
use clap::Args;

use super::session::Session;
use crate::{
    edge::{CommandError, Outcome},
    value::Switch,
};

/// Where the cluster is.
#[derive(Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterFlags {
    /// Addresses of PD, separated by commas.
    #[arg(
        short = 'u',
        long,
        global = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:2379",
        value_name = "HOST:PORT"
    )]
    pd: Vec<String>,
    /// CA certificate for TLS, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate for TLS, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Refuse clusters and backups of versions that this tool was not made for.
    #[arg(long, global = true, default_value = "true")]
    pub(super) check_requirements: Switch,
}

impl ClusterFlags {
    /// The addresses of PD, without schemes.
    pub(super) fn pd_addresses(&self) -> Vec<String> {
        let plain = self.pd.iter().map(|address| {
            let rest = address.strip_prefix("http://");
            rest.or_else(|| address.strip_prefix("https://"))
                .unwrap_or(address)
                .to_owned()
        });
        plain.collect()
    }

    /// Connects to PD.
    pub(super) async fn connect(&self, session: &Session) -> Outcome<Cluster> {
        let config = ClusterConfig::new(&self.pd.join(","), self.security()?);
        Ok(Cluster::connect(session.rt.clone(), session.cancel.clone(), config).await?)
    }

    /// Refuses what is wrong with the flags alone, before anything is made anywhere.
    pub(super) fn check(&self) -> Outcome {
        self.security().map(drop)
    }

    /// The certificates.
    pub(super) fn security(&self) -> Outcome<Security> {
        let given = |path: &Option<PathBuf>| path.clone().filter(|p| !p.as_os_str().is_empty());
        let identity = match (given(&self.cert), given(&self.key)) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(ClientIdentity {
                certificate_pem: read(&cert)?,
                key_pem: read(&key)?,
            }),
            _ => {
                return Err(CommandError::invalid(
                    "--cert and --key go together",
                    "pass both or neither",
                ));
            }
        };
        let ca_pem = given(&self.ca).map(|path| read(&path)).transpose()?;
        if ca_pem.is_none() && identity.is_some() {
            return Err(CommandError::invalid(
                "--cert and --key are given without --ca",
                "pass the CA certificate that signs the cluster's",
            ));
        }
        Ok(Security { ca_pem, identity })
    }
}

fn read(path: &PathBuf) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|error| {
        CommandError::system(format_args!("cannot read {}", path.display()), &error)
    })
}
