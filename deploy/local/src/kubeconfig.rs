//! Kubeconfig files.

use std::path::Path;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::pki::PairPem;
use crate::state::write_private;

/// How a kubeconfig's user proves who it is.
pub(crate) enum Identity<'a> {
    Certificate(&'a PairPem),
    Token(&'a str),
}

/// Writes a kubeconfig with mode 0600. No value in it needs quoting: they are URLs, base64 and names of ours.
pub(crate) fn write(path: &Path, server: &str, ca_pem: &str, identity: &Identity<'_>) -> Result<()> {
    let user = match identity {
        Identity::Certificate(pair) => format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            STANDARD.encode(&pair.cert),
            STANDARD.encode(&pair.key)
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
