//! Writes kubeconfig files.

use std::path::Path;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::pki::CertPem;
use crate::state::write_private;

/// How the user of a kubeconfig authenticates.
pub(crate) enum Identity<'a> {
    Certificate(&'a CertPem),
    Token(&'a str),
}

/// Writes a kubeconfig with mode 0600. No value needs quoting in YAML: all are URLs, base64 or tokens.
pub(crate) fn write(path: &Path, server: &str, ca_pem: &str, identity: &Identity<'_>) -> Result<()> {
    let user = match identity {
        Identity::Certificate(pem) => format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            STANDARD.encode(&pem.cert),
            STANDARD.encode(&pem.key)
        ),
        Identity::Token(token) => format!("token: {token}"),
    };
    let ca = STANDARD.encode(ca_pem);
    write_private(
        path,
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: local\n\
             clusters:\n- name: local\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
             contexts:\n- name: local\n  context:\n    cluster: local\n    user: local\n\
             users:\n- name: local\n  user:\n    {user}\n"
        ),
    )
}
