//! The certificate that Daypass serves with.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::support::{Daypass, Lab, Launch, eventually};

const EXPIRY: &str = "daypass_certificate_expiry_timestamp_seconds";

/// Writes a new self-signed pair for 127.0.0.1, that ends with that year, as the kubelet writes a Secret into its volume: into a folder
/// that a link is then set to. The certificate.
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

/// Whether the API serves with a certificate that this one vouches for.
fn serves_with(daypass: &Daypass, certificate: &str) -> bool {
    let trusted = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    let client = Client::builder().tls_certs_only([trusted]).build().unwrap();
    client.get(format!("{}/openapi.json", daypass.url)).send().is_ok_and(|answer| answer.status().is_success())
}

#[test]
fn a_given_certificate_is_served_and_its_renewal_needs_no_restart() {
    let (lab, shared) = Lab::shared();
    let folder = lab.fresh_folder("tls");
    let first = write_pair(&folder, 2050);
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let args =
        ["--tls-cert-file", &file("tls.crt"), "--tls-key-file", &file("tls.key"), "--tls-ca-file", &file("tls.crt")];
    let launch = Launch { args: args.map(str::to_owned).to_vec(), ..Launch::default() };
    let daypass = Daypass::start(lab, &launch);
    assert!(serves_with(&daypass, &first));
    assert_eq!(daypass.metric(EXPIRY), end_of(2050));
    assert!(!serves_with(&daypass, &lab.serving_certificate()), "not the self-signed pair");
    assert!(serves_with(shared, &lab.serving_certificate()), "which the other replica serves with");

    // Half of a pair, as it is between two writes: what was served goes on being served.
    fs::write(folder.join("tls.crt"), rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem())
        .unwrap();
    eventually("the bad pair is noticed", || daypass.log().contains("cannot be used").then_some(()));
    assert!(serves_with(&daypass, &first));

    let second = write_pair(&folder, 2060);
    eventually("the renewed certificate is served", || serves_with(&daypass, &second).then_some(()));
    assert!(!serves_with(&daypass, &first));
    eventually("the metric tells its end", || (daypass.metric(EXPIRY) == end_of(2060)).then_some(()));
}

#[test]
fn behind_a_proxy_that_ends_tls_its_ca_is_handed_out_or_none() {
    let (lab, _) = Lab::shared();
    let role = lab.reader();
    let file = lab.fresh_folder("proxy").join("ca.crt");
    let pem = rcgen::generate_simple_self_signed(["edge".to_owned()]).unwrap().cert.pem();
    fs::write(&file, &pem).unwrap();
    let at_proxy = "--tls-at-proxy".to_owned();
    let with_ca = vec![at_proxy.clone(), format!("--proxy-ca-file={}", file.display())];
    for (args, expected) in [(vec![at_proxy], Value::Null), (with_ca, json!(pem))] {
        let daypass = Daypass::start(lab, &Launch { args, ..Launch::default() });
        let member = daypass.owner.post("/members", &json!({"duration": "1", "roleId": role.id})).expect(201).json();
        assert_eq!(member["credentials"]["caCertificate"], expected);
        let handover = member["credentials"]["handover"].as_str().unwrap();
        assert_eq!(handover.contains("BEGIN CERTIFICATE"), expected != Value::Null, "{handover}");
    }
}

#[test]
fn the_fingerprint_is_logged() {
    let (lab, daypass) = Lab::shared();
    let certificate = daypass::serve::tls::leaf(&lab.serving_certificate()).unwrap();
    assert!(daypass.log().contains(&daypass::serve::tls::fingerprint(&certificate)));
}
