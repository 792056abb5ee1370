//! Converts certificates between PEM (RFC 7468) and DER.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The certificates (DER) in a PEM text.
///
/// # Errors
/// If one is malformed, or there is none.
pub fn certificates(pem: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| der.map(|der| der.to_vec())).collect();
    let all = all.context("a certificate is not valid PEM")?;
    anyhow::ensure!(!all.is_empty(), "no certificate found");
    Ok(all)
}

/// Encodes certificates (DER) as PEM.
pub fn to_pem(certificates: &[Vec<u8>]) -> String {
    let encode = |der: &Vec<u8>| {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    certificates.iter().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_survives_a_round_trip() {
        let ders = vec![vec![1, 2, 3], vec![4; 100]];
        assert_eq!(certificates(&to_pem(&ders)).unwrap(), ders);
        assert!(certificates("").is_err());
    }
}
