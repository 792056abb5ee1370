//! The policy daypass-certificates: nobody gets a certificate that the API server accepts as a role's member or
//! as Daypass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::string::BmpString;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
use serde_json::json;

use crate::support::{WallTest, attack, eventually, legit};

const NO: (&str, &str) = ("daypass-certificates", "a certificate must not name a service account or a group of them");

/// A request for a client certificate in these groups (`O`), each optionally in UTF-16.
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
fn certificate_for_a_member_or_daypass_is_refused() {
    let (mut test, _) = WallTest::shared();
    let group = "system:serviceaccounts:daypass-nodes-view";
    // At any byte offset: the length of the common name shifts it.
    for padding in ["a", "ab", "abc"] {
        for wide in [false, true] {
            let asked = manifest("walls-twin", &pem(padding, &[(group, wide)]));
            test.set("REQUEST", &asked).check_all(&[attack("in a role's group", "", "create -f -", "$REQUEST", NO)]);
        }
    }
    for user in ["system:serviceaccount:daypass:daypass", "system:serviceaccount:daypass-nodes-view:m1"] {
        test.set("REQUEST", &manifest("walls-twin", &pem(user, &[])));
        test.check_all(&[attack("under the name of Daypass or of a member", "", "create -f -", "$REQUEST", NO)]);
    }
}

/// PEM readers skip white space, accept lines of any length and ignore text before the block.
#[test]
fn encoded_certificate_request_cannot_hide_its_name() {
    let pem = pem("anybody", &[("system:serviceaccounts:daypass-nodes-view", false)]);
    let (head, rest) = pem.split_once('\n').unwrap();
    let (body, tail) = rest.split_at(rest.find("-----END").unwrap());
    let digits: String = body.split_whitespace().collect();
    let wrapped = |width: usize, end: &str| {
        let lines: Vec<&[u8]> = digits.as_bytes().chunks(width).collect();
        let lines: Vec<&str> = lines.into_iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("{head}\n{}\n{tail}", lines.join(end))
    };
    let (mut test, _) = WallTest::shared();
    for text in [
        wrapped(1, "\n"),
        wrapped(7, " \n\t "),
        wrapped(64, "\r\n"),
        wrapped(100_000, ""),
        format!("Subject: somebody\nelse\n{pem}"),
    ] {
        test.set("REQUEST", &manifest("walls-hidden", &text));
        test.check_all(&[attack("hidden", "", "create -f -", "$REQUEST", NO)]);
    }
}

#[test]
fn other_certificate_requests_pass() {
    let (mut test, _) = WallTest::shared();
    let cluster = test.cluster();
    let asked = request("walls-fine", &[("support", false), ("system:nodes", true)]);
    test.set("REQUEST", &request("walls-other", &[("system:service", false)]));
    test.check_all(&[legit("another group", "", "create -f -", "$REQUEST")]);
    cluster.apply(&asked);
    cluster.kubectl(&["certificate", "approve", "walls-fine"]);
    eventually("it is signed", || {
        let certificate = cluster.kubectl(&["get", "csr", "walls-fine", "-o", "jsonpath={.status.certificate}"]);
        (!certificate.is_empty()).then_some(())
    });
}
