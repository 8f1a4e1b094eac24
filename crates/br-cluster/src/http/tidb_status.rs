use br_rt::CancellationToken;
use br_types::TableId;
use reqwest::StatusCode;
use serde::Deserialize;

use super::{HttpClient, HttpError, client::Request};
use crate::{Etcd, PdError};

/// Where TiDB servers register, in etcd.
const SERVERS: &[u8] = b"/tidb/server/info/";

/// Asks the status ports of TiDB servers.
#[derive(Clone)]
pub struct TidbStatus {
    http: HttpClient,
    etcd: Etcd,
    cancel: CancellationToken,
}

/// What matters of how a server registers.
#[derive(Deserialize)]
struct Server {
    ip: String,
    status_port: u16,
}

/// What matters of the answer.
#[derive(Deserialize)]
struct Answer {
    schema_version: i64,
}

impl TidbStatus {
    pub(crate) fn new(http: HttpClient, etcd: Etcd, cancel: CancellationToken) -> TidbStatus {
        TidbStatus { http, etcd, cancel }
    }

    /// The status addresses of the servers that are up; what registers in another form is left out.
    ///
    /// # Errors
    /// PD is out of reach.
    pub async fn servers(&self) -> Result<Vec<String>, PdError> {
        let found = self.etcd.get_prefix(SERVERS).await?;
        let address = |value: &[u8]| {
            let Server { ip, status_port } = serde_json::from_slice(value).ok()?;
            let is_v6 = ip.contains(':') && !ip.starts_with('[');
            Some(match is_v6 {
                true => format!("[{ip}]:{status_port}"),
                false => format!("{ip}:{status_port}"),
            })
        };
        Ok(found
            .kvs
            .iter()
            .filter_map(|kv| address(&kv.value))
            .collect())
    }

    /// The version of the schemas that the server with this status address works with; `None` if it
    /// knows no such table. Nothing is tried again.
    ///
    /// # Errors
    /// The port is out of reach, or answers something else.
    pub async fn schema_version(
        &self,
        status_address: &str,
        table: TableId,
    ) -> Result<Option<i64>, HttpError> {
        let path = format!("/db-table/{}", table.0);
        let request = Request::get(&path);
        match self.http.json(&self.cancel, status_address, &request).await {
            Ok(Answer { schema_version }) => Ok(Some(schema_version)),
            Err(error) if error.status() == Some(StatusCode::BAD_REQUEST) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
