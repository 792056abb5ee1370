//! The certificate that Daypass serves with.

use std::fs;
use std::path::Path;

use reqwest::blocking::Client;

use crate::support::{Daypass, Lab, Launch, eventually};

/// Writes a new self-signed pair for 127.0.0.1 into the folder; the certificate.
fn write_pair(folder: &Path) -> String {
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(folder.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("tls.crt"), pair.cert.pem()).unwrap();
    pair.cert.pem()
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
    let first = write_pair(&folder);
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let args =
        ["--tls-cert-file", &file("tls.crt"), "--tls-key-file", &file("tls.key"), "--tls-ca-file", &file("tls.crt")];
    let launch = Launch { args: args.map(str::to_owned).to_vec(), ..Launch::default() };
    let daypass = Daypass::start(lab, &launch);
    assert!(serves_with(&daypass, &first));
    assert!(!serves_with(&daypass, &lab.serving_certificate()), "not the self-signed pair");
    assert!(serves_with(shared, &lab.serving_certificate()), "which the other replica serves with");

    // Half of a pair, as it is between two writes: what was served goes on being served.
    fs::write(folder.join("tls.crt"), rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem())
        .unwrap();
    eventually("the bad pair is noticed", || daypass.log().contains("cannot be used").then_some(()));
    assert!(serves_with(&daypass, &first));

    let second = write_pair(&folder);
    eventually("the renewed certificate is served", || serves_with(&daypass, &second).then_some(()));
    assert!(!serves_with(&daypass, &first));
}

#[test]
fn the_fingerprint_is_logged() {
    let (lab, daypass) = Lab::shared();
    let certificate = daypass::tls::leaf(&lab.serving_certificate()).unwrap();
    assert!(daypass.log().contains(&daypass::tls::fingerprint(&certificate)));
}
