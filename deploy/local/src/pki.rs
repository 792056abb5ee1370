//! The certificates and keys of one control plane, with a CA that is new at every start.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::state::write_private;

/// Longer than any local control plane runs.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The files of a certificate and its private key.
#[derive(Debug, Clone)]
pub(crate) struct CertFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A certificate and its private key, as PEM.
pub(crate) struct CertPem {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// All certificates and keys. The files have the names that kubeadm gives them.
pub(crate) struct Pki {
    dir: PathBuf,
    authority: Authority,
    pub(crate) ca: CertFiles,
    pub(crate) ca_pem: String,
    pub(crate) apiserver: CertFiles,
    pub(crate) etcd: CertFiles,
    pub(crate) etcd_client: CertFiles,
    /// Signs service-account tokens (ECDSA P-256, PKCS #8).
    pub(crate) service_account_key: PathBuf,
    pub(crate) service_account_public: PathBuf,
    pub(crate) admin: CertPem,
    pub(crate) controller_manager: CertPem,
}

impl Pki {
    /// Writes a new set of certificates to `dir`. `hosts` are additional names and addresses of the API server.
    pub(crate) fn create(dir: &Path, hosts: &[&str]) -> Result<Self> {
        let authority = Authority::new()?;
        let servers = ["127.0.0.1", "localhost"];
        // 10.0.0.1 is the first address of the Service range; pods use the names of that Service.
        let mut apiserver = vec![
            "127.0.0.1",
            "::1",
            "localhost",
            "10.0.0.1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ];
        apiserver.extend(hosts);
        let signing = KeyPair::generate()?;
        let service_account_key = dir.join("sa.key");
        let service_account_public = dir.join("sa.pub");
        write_private(&service_account_key, &signing.serialize_pem())?;
        write_private(&service_account_public, &signing.public_key_pem())?;
        Ok(Self {
            dir: dir.to_owned(),
            ca: authority.pem.write(dir, "ca")?,
            ca_pem: authority.pem.cert.clone(),
            apiserver: authority.issue("kube-apiserver", None, &apiserver)?.write(dir, "apiserver")?,
            etcd: authority.issue("etcd", None, &servers)?.write(dir, "etcd")?,
            etcd_client: authority
                .issue("kube-apiserver-etcd-client", None, &[])?
                .write(dir, "apiserver-etcd-client")?,
            service_account_key,
            service_account_public,
            // Kubernetes binds this group and this user to their rights by default.
            admin: authority.issue("admin", Some("system:masters"), &[])?,
            controller_manager: authority.issue("system:kube-controller-manager", None, &[])?,
            authority,
        })
    }

    /// Issues a client certificate for a kubeconfig.
    pub(crate) fn issue(&self, name: &str, group: Option<&str>) -> Result<CertPem> {
        self.authority.issue(name, group, &[])
    }

    /// Issues a client certificate and writes it to `<file>.crt` and `<file>.key`. With `hosts`, it is valid for a
    /// server too.
    pub(crate) fn write_cert(&self, file: &str, user: &str, group: Option<&str>, hosts: &[&str]) -> Result<CertFiles> {
        self.authority.issue(user, group, hosts)?.write(&self.dir, file)
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: CertPem,
}

impl Authority {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = params("daypass-local-ca", None, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let pem = CertPem { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Issues a certificate for a client and, with `hosts`, for a server too: etcd is also a client of itself.
    fn issue(&self, name: &str, group: Option<&str>, hosts: &[&str]) -> Result<CertPem> {
        let key = KeyPair::generate()?;
        let mut params = params(name, group, hosts)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let cert = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot create the certificate of {name}"))?;
        Ok(CertPem { cert: cert.pem(), key: key.serialize_pem() })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates start at this machine's time, since no API server runs yet"
)]
fn params(name: &str, group: Option<&str>, hosts: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + LIFETIME).into();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

impl CertPem {
    fn write(&self, dir: &Path, name: &str) -> Result<CertFiles> {
        let files = CertFiles { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        write_private(&files.cert, &self.cert)?;
        write_private(&files.key, &self.key)?;
        Ok(files)
    }
}
