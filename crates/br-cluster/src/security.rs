use std::{fmt, sync::Arc};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// A client certificate and its key, PEM.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The chain, the client's own certificate first.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: Vec<u8>,
}

/// TLS for the connections to PD and the stores; empty means plain text.
#[derive(Clone, Default)]
pub struct Security {
    /// Certificates that sign the servers', PEM. Without it, connections are plain text.
    pub ca_pem: Option<Vec<u8>>,
    /// What the client shows, where servers ask for it.
    pub identity: Option<ClientIdentity>,
}

/// The keys stay out of it.
impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("tls", &self.is_tls())
            .field("client_certificate", &self.identity.is_some())
            .finish()
    }
}

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the {what} cannot be used: {cause}")]
pub struct SecurityError {
    /// Which of the files.
    pub what: &'static str,
    /// Why, in the words of the TLS library.
    pub cause: String,
}

impl br_types::Classify for SecurityError {
    fn kind(&self) -> br_types::Kind {
        br_types::Kind::Invalid
    }

    fn next_step(&self) -> Option<String> {
        Some("Check the files given with --ca, --cert and --key".into())
    }
}

impl Security {
    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.ca_pem.is_some()
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    /// For gRPC channels; `None` for plain text.
    pub(crate) fn grpc(&self) -> Option<ClientTlsConfig> {
        let mut config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca_pem.as_ref()?));
        if let Some(identity) = &self.identity {
            config = config.identity(Identity::from_pem(
                &identity.certificate_pem,
                &identity.key_pem,
            ));
        }
        Some(config)
    }

    /// For HTTP.
    ///
    /// # Errors
    /// A file is not PEM, or certificate and key do not fit.
    pub(crate) fn rustls(&self) -> Result<rustls::ClientConfig, SecurityError> {
        // Without TLS nobody is asked for a certificate.
        let roots = match self.is_tls() {
            true => self.roots()?,
            false => rustls::RootCertStore::empty(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS setup", &error))?
            .with_root_certificates(roots);
        let Some(identity) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let (chain, key) = identity.parse("client certificate")?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable("client certificate", &error))
    }
}

impl Security {
    /// For servers that show the identity and take only clients whose certificates the CA has
    /// signed, HTTP/2 and HTTP/1.1; `None` for plain text.
    ///
    /// # Errors
    /// A file is not PEM, certificate and key do not fit, or there is no identity.
    pub fn server(&self) -> Result<Option<Arc<rustls::ServerConfig>>, SecurityError> {
        if !self.is_tls() {
            return Ok(None);
        }
        let identity = self.identity.as_ref();
        let identity = identity.ok_or_else(|| unusable("server certificate", &"it is missing"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone());
        let clients = clients
            .build()
            .map_err(|error| unusable("CA file", &error))?;
        let (chain, key) = identity.parse("server certificate")?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("TLS setup", &error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|error| unusable("server certificate", &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Arc::new(config)))
    }

    fn roots(&self) -> Result<rustls::RootCertStore, SecurityError> {
        let mut roots = rustls::RootCertStore::empty();
        let pem = self.ca_pem.as_deref().unwrap_or_default();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| unusable("CA file", &error))?;
            roots
                .add(certificate)
                .map_err(|error| unusable("CA file", &error))?;
        }
        // Without TLS there is no file, and nothing to trust.
        match self.is_tls() && roots.is_empty() {
            true => Err(unusable("CA file", &"it has no certificate")),
            false => Ok(roots),
        }
    }
}

impl ClientIdentity {
    fn parse(
        &self,
        what: &'static str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), SecurityError> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable(what, &error))?;
        if chain.is_empty() {
            return Err(unusable(what, &"it has no certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem)
            .map_err(|error| unusable("private key", &error))?;
        Ok((chain, key))
    }
}

fn unusable(what: &'static str, cause: &dyn fmt::Display) -> SecurityError {
    SecurityError {
        what,
        cause: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_needs_no_certificates() {
        let plain = Security::default();
        assert!(plain.rustls().is_ok());
        assert!(plain.server().unwrap().is_none());
        let empty = Security {
            ca_pem: Some(Vec::new()),
            identity: None,
        };
        assert!(empty.rustls().is_err());
        assert!(empty.server().is_err());
    }
}
