use br_cluster::Cluster;

use crate::CatalogError;

/// Where TiDB servers watch for changes of users and privileges.
const PRIVILEGE_KEY: &[u8] = b"/tidb/privilege";

/// That those of all users may have changed. No server has the number 0, so none takes it for its
/// own word.
const ALL_USERS: &[u8] = br#"{"All":true,"ServerID":0,"UserList":null}"#;

/// Lets TiDB servers read users and privileges anew, as `FLUSH PRIVILEGES` does.
///
/// # Errors
/// PD is out of reach: servers read them anew within ten minutes.
pub async fn flush_privileges(cluster: &Cluster) -> Result<(), CatalogError> {
    Ok(cluster.etcd().put(PRIVILEGE_KEY, ALL_USERS, None).await?)
}
