//! The certificates and keys of one control plane: a CA of its own, made at every start.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::state::write_private;

/// Longer than any control plane here lives.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate and its private key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// The same as PEM, for a kubeconfig.
pub(crate) struct PairPem {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Where everything is. The names are those that kubeadm uses.
pub(crate) struct Pki {
    dir: PathBuf,
    authority: Authority,
    pub(crate) ca: Pair,
    pub(crate) ca_pem: String,
    pub(crate) apiserver: Pair,
    pub(crate) etcd: Pair,
    pub(crate) etcd_client: Pair,
    /// Signs service-account tokens (ECDSA P-256, PKCS #8).
    pub(crate) service_account_key: PathBuf,
    pub(crate) service_account_public: PathBuf,
    pub(crate) admin: PairPem,
    pub(crate) controller_manager: PairPem,
}

impl Pki {
    /// `hosts` are more names and addresses of the API server.
    pub(crate) fn create(dir: &Path, hosts: &[&str]) -> Result<Self> {
        let authority = Authority::new()?;
        let servers = ["127.0.0.1", "localhost"];
        // The first address of the service range, and the names that pods use.
        let mut apiserver =
            vec!["127.0.0.1", "localhost", "10.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        apiserver.extend(hosts);
        let signing = KeyPair::generate()?;
        let service_account_key = dir.join("sa.key");
        let service_account_public = dir.join("sa.pub");
        write_private(&service_account_key, &signing.serialize_pem())?;
        write_private(&service_account_public, &signing.public_key_pem())?;
        Ok(Self {
            dir: dir.to_owned(),
            ca: authority.pem().write(dir, "ca")?,
            ca_pem: authority.pem.cert.clone(),
            apiserver: authority.issue("kube-apiserver", None, &apiserver)?.write(dir, "apiserver")?,
            etcd: authority.issue("etcd", None, &servers)?.write(dir, "etcd")?,
            etcd_client: authority
                .issue("kube-apiserver-etcd-client", None, &[])?
                .write(dir, "apiserver-etcd-client")?,
            service_account_key,
            service_account_public,
            // The group and the user that Kubernetes' own bootstrap bindings name.
            admin: authority.issue("admin", Some("system:masters"), &[])?,
            controller_manager: authority.issue("system:kube-controller-manager", None, &[])?,
            authority,
        })
    }

    /// A certificate for a user, for a kubeconfig.
    pub(crate) fn user(&self, name: &str, group: Option<&str>) -> Result<PairPem> {
        self.authority.issue(name, group, &[])
    }

    /// The same as files, and for a server as well where it has `hosts`.
    pub(crate) fn files(&self, file: &str, name: &str, group: Option<&str>, hosts: &[&str]) -> Result<Pair> {
        self.authority.issue(name, group, hosts)?.write(&self.dir, file)
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: PairPem,
}

impl Authority {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = params("daypass-local-ca", None, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let pem = PairPem { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    fn pem(&self) -> &PairPem {
        &self.pem
    }

    /// A certificate for both ends of a connection: etcd's is a client too, to itself.
    fn issue(&self, name: &str, group: Option<&str>, hosts: &[&str]) -> Result<PairPem> {
        let key = KeyPair::generate()?;
        let mut params = params(name, group, hosts)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let cert =
            params.signed_by(&key, &self.issuer).with_context(|| format!("cannot make the certificate of {name}"))?;
        Ok(PairPem { cert: cert.pem(), key: key.serialize_pem() })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a certificate starts at this machine's time; there is no API server yet"
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

impl PairPem {
    fn write(&self, dir: &Path, name: &str) -> Result<Pair> {
        let pair = Pair { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        write_private(&pair.cert, &self.cert)?;
        write_private(&pair.key, &self.key)?;
        Ok(pair)
    }
}
