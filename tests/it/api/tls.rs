//! The certificate that Daypass serves with.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::support::{Cluster, DEADLINE, Daypass, Launch, eventually};

const EXPIRY: &str = "daypass_certificate_expiry_timestamp_seconds";

/// Writes a new self-signed pair for 127.0.0.1 that expires with a year. Like the kubelet, it writes into a new folder
/// and then moves a link to it. Returns the certificate.
fn write_pair(volume: &Path, year: i32) -> String {
    let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 12, 31);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let folder = volume.join(format!("..{year}"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("tls.crt"), &certificate).unwrap();
    symlink(&folder, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    for name in ["tls.key", "tls.crt"] {
        let _already_there = symlink(format!("..data/{name}"), volume.join(name));
    }
    certificate
}

/// The 31st of December of a year, in Unix time.
fn end_of(year: i32) -> f64 {
    let day = chrono::NaiveDate::from_ymd_opt(year, 12, 31).unwrap();
    i32::try_from((day - chrono::NaiveDate::default()).num_days()).map(f64::from).unwrap() * 86400.0
}

/// Whether a client that trusts this certificate can connect.
fn serves_with(daypass: &Daypass, certificate: &str) -> bool {
    let trusted = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    let client = Client::builder().tls_certs_only([trusted]).timeout(DEADLINE).build().unwrap();
    client.get(format!("{}/openapi.json", daypass.url)).send().is_ok_and(|answer| answer.status().is_success())
}

#[test]
fn given_certificate_is_served_and_renewed_without_restart() {
    let (cluster, shared) = Cluster::shared();
    let folder = cluster.fresh_folder("tls");
    let first = write_pair(&folder, 2050);
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let args =
        ["--tls-cert-file", &file("tls.crt"), "--tls-key-file", &file("tls.key"), "--tls-ca-file", &file("tls.crt")];
    let launch = Launch { args: args.map(str::to_owned).to_vec(), ..Launch::default() };
    let daypass = Daypass::start(cluster, &launch);
    assert!(serves_with(&daypass, &first));
    assert_eq!(daypass.metric(EXPIRY), end_of(2050));
    assert!(!serves_with(&daypass, &cluster.serving_certificate()), "not the self-signed pair");
    assert!(serves_with(shared, &cluster.serving_certificate()), "which the other replica serves with");

    // Between two writes the pair does not match: Daypass keeps the old one.
    fs::write(
        folder.join("tls.crt"),
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem(),
    )
    .unwrap();
    eventually("the bad pair is noticed", || daypass.log().contains("cannot be used").then_some(()));
    assert!(serves_with(&daypass, &first));

    let second = write_pair(&folder, 2060);
    eventually("the renewed certificate is served", || serves_with(&daypass, &second).then_some(()));
    assert!(!serves_with(&daypass, &first));
    eventually("the metric shows its end", || (daypass.metric(EXPIRY) == end_of(2060)).then_some(()));
}

#[test]
fn ca_of_tls_terminating_proxy_is_handed_out() {
    let (cluster, _) = Cluster::shared();
    let role = cluster.reader();
    let file = cluster.fresh_folder("proxy").join("ca.crt");
    let pem = rcgen::generate_simple_self_signed(["edge".to_owned()]).unwrap().cert.pem();
    fs::write(&file, &pem).unwrap();
    let at_proxy = "--tls-at-proxy".to_owned();
    let with_ca = vec![at_proxy.clone(), format!("--proxy-ca-file={}", file.display())];
    for (args, expected) in [(vec![at_proxy], Value::Null), (with_ca, json!(pem))] {
        let daypass = Daypass::start(cluster, &Launch { args, ..Launch::default() });
        let member = daypass.owner.post("/members", &json!({"duration": "1", "roleId": role.id})).expect(201).json();
        assert_eq!(member["credentials"]["caCertificate"], expected);
        let handover = member["credentials"]["handover"].as_str().unwrap();
        assert_eq!(handover.contains("BEGIN CERTIFICATE"), expected != Value::Null, "{handover}");
    }
}

#[test]
fn certificate_fingerprint_is_logged() {
    let (cluster, daypass) = Cluster::shared();
    let certificate = daypass::serve::tls::leaf(&cluster.serving_certificate()).unwrap();
    assert!(daypass.log().contains(&daypass::serve::tls::fingerprint(&certificate)));
}
