use std::sync::Once;

static INSTALLED: Once = Once::new();

/// Makes ring the process's provider of cryptography for TLS. HTTPS and TLS over gRPC panic
/// without a provider; calling it again does nothing.
pub fn install_tls_provider() {
    INSTALLED.call_once(|| {
        // An error means that somebody else in the process chose a provider first: that one holds.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
