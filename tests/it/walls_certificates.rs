//! The policy daypass-certificates: nobody gets a certificate that the API server takes for a member of a role, or
//! for Daypass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::string::BmpString;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
use serde_json::json;

use crate::support::{Stage, attack, eventually, legit};

const NO: (&str, &str) = ("daypass-certificates", "no certificate names a service account or a group of them");

/// A request for a client certificate in these groups (`O`), each in UTF-16 where it says so.
pub fn request(name: &str, groups: &[(&str, bool)]) -> String {
    manifest(name, &pem("anybody", groups))
}

fn pem(user: &str, groups: &[(&str, bool)]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    for (group, wide) in groups {
        let value = if *wide {
            DnValue::BmpString(BmpString::try_from(*group).unwrap())
        } else {
            DnValue::Utf8String((*group).to_owned())
        };
        params.distinguished_name.push(DnType::OrganizationName, value);
    }
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn manifest(name: &str, pem: &str) -> String {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
                 "request": STANDARD.encode(pem)},
    })
    .to_string()
}

#[test]
fn nobody_asks_for_a_certificate_that_is_a_member_or_daypass() {
    let (mut stage, _) = Stage::shared();
    let group = "system:serviceaccounts:daypass-nodes-view";
    // Wherever it begins, in bytes: the common name before it moves it.
    for padding in ["a", "ab", "abc"] {
        for wide in [false, true] {
            let asked = manifest("walls-twin", &pem(padding, &[(group, wide)]));
            stage.set("REQUEST", &asked).play(&[attack("in a role's group", "", "create -f -", "$REQUEST", NO)]);
        }
    }
    for user in ["system:serviceaccount:daypass:daypass", "system:serviceaccount:daypass-nodes-view:m1"] {
        stage.set("REQUEST", &manifest("walls-twin", &pem(user, &[])));
        stage.play(&[attack("under the name of Daypass or of a member", "", "create -f -", "$REQUEST", NO)]);
    }
}

/// Readers of PEM skip white space, lines of any length and what stands before it.
#[test]
fn no_way_of_writing_a_request_hides_what_it_names() {
    let pem = pem("anybody", &[("system:serviceaccounts:daypass-nodes-view", false)]);
    let (head, rest) = pem.split_once('\n').unwrap();
    let (body, tail) = rest.split_at(rest.find("-----END").unwrap());
    let digits: String = body.split_whitespace().collect();
    let wrapped = |width: usize, end: &str| {
        let lines: Vec<&[u8]> = digits.as_bytes().chunks(width).collect();
        let lines: Vec<&str> = lines.into_iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("{head}\n{}\n{tail}", lines.join(end))
    };
    let (mut stage, _) = Stage::shared();
    for text in [
        wrapped(1, "\n"),
        wrapped(7, " \n\t "),
        wrapped(64, "\r\n"),
        wrapped(100_000, ""),
        format!("Subject: somebody\nelse\n{pem}"),
    ] {
        stage.set("REQUEST", &manifest("walls-hidden", &text));
        stage.play(&[attack("hidden", "", "create -f -", "$REQUEST", NO)]);
    }
}

#[test]
fn other_certificates_are_asked_for_approved_and_signed() {
    let (mut stage, _) = Stage::shared();
    let lab = stage.lab();
    let asked = request("walls-fine", &[("support", false), ("system:nodes", true)]);
    stage.set("REQUEST", &request("walls-other", &[("system:service", false)]));
    stage.play(&[legit("another group", "", "create -f -", "$REQUEST")]);
    lab.apply(&asked);
    lab.kubectl(&["certificate", "approve", "walls-fine"]);
    eventually("it is signed", || {
        let certificate = lab.kubectl(&["get", "csr", "walls-fine", "-o", "jsonpath={.status.certificate}"]);
        (!certificate.is_empty()).then_some(())
    });
}
