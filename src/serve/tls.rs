//! Certificates: makes a self-signed pair, reads PEM, and builds the TLS configuration of the API.

use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, Datelike as _, Utc};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use sha2::{Digest as _, Sha256};

use crate::cluster::KeyPair;

/// How long a self-signed pair is valid. Nothing renews it: to make a new one, delete its Secret and restart.
const SELF_SIGNED_YEARS: i32 = 10;

/// Makes a self-signed pair for these DNS names and IP addresses.
///
/// # Errors
/// The reason as text, when a certificate cannot contain one of the names.
pub fn self_signed(names: &[String], now: DateTime<Utc>) -> Result<KeyPair, String> {
    let make = || {
        let mut params = rcgen::CertificateParams::new(names)?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "daypass");
        // The first of the month exists in every year, and lies in the past for clients with a slow clock.
        let first_of = |year: i32, month: u32| rcgen::date_time_ymd(year, u8::try_from(month).unwrap_or(1), 1);
        params.not_before = first_of(now.year(), now.month());
        params.not_after = first_of(now.year() + SELF_SIGNED_YEARS, now.month());
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(KeyPair { certificate: certificate.pem(), key: key.serialize_pem().into() })
    };
    make().map_err(|error: rcgen::Error| error.to_string())
}

/// The first certificate of a PEM text.
///
/// # Errors
/// When the text contains no certificate.
pub fn leaf(pem: &str) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).context("the certificate is not PEM")
}

/// The TLS configuration of the API, for HTTP/2 and HTTP/1.1.
///
/// # Errors
/// When the certificate or the key is not PEM, or the two do not match.
pub fn server_config(certificate: &str, key: &[u8]) -> anyhow::Result<Arc<ServerConfig>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key).context("the key is not PEM")?;
    let chain = chain.context("a certificate is not PEM")?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` prints it.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let bytes: Vec<String> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

/// When a certificate expires.
///
/// # Errors
/// When the certificate cannot be parsed.
pub fn not_after(certificate: &CertificateDer<'_>) -> anyhow::Result<DateTime<Utc>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).context("the certificate cannot be read")?;
    DateTime::from_timestamp(parsed.validity().not_after.timestamp(), 0)
        .context("the certificate's expiry is not a valid time")
}

/// Whether the certificate is valid for `host`, a DNS name or IP address.
pub fn covers(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let parsed = ParsedCertificate::try_from(certificate);
    let name = ServerName::try_from(host);
    matches!((parsed, name), (Ok(parsed), Ok(name)) if verify_server_name(&parsed, &name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_signed_pair_covers_its_names_and_no_others() {
        let names = ["daypass.example.com".to_owned(), "127.0.0.1".to_owned()];
        let pair = self_signed(&names, DateTime::from_timestamp(1_800_000_000, 0).unwrap()).unwrap();
        let certificate = leaf(&pair.certificate).unwrap();
        assert!(covers(&certificate, "daypass.example.com") && covers(&certificate, "127.0.0.1"));
        assert!(!covers(&certificate, "example.com"));
        assert_eq!(fingerprint(&certificate).len(), 32 * 3 - 1);
        assert_eq!(not_after(&certificate).unwrap().to_rfc3339(), "2037-01-01T00:00:00+00:00");
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }
}
