//! The checked-in generated files match the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::Cluster;

fn checked_in(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn assert_generated(command: &str, files: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_daypass")).args(command.split(' ')).output().unwrap();
    assert!(output.status.success());
    let generated = String::from_utf8(output.stdout).unwrap();
    for file in files {
        // assert_eq would print thousands of lines.
        assert!(generated == checked_in(file), "{file} is not what `daypass {command}` prints: run `make generate`");
    }
}

#[test]
fn crds_match_the_code() {
    for name in ["members", "accesstokens"] {
        let files = [format!("crds/{name}.yaml"), format!("deploy/charts/daypass/files/{name}.yaml")];
        assert_generated(&format!("crds {name}"), &files.each_ref().map(String::as_str));
    }
}

#[test]
fn openapi_document_matches_the_code() {
    assert_generated("openapi", &["docs/openapi.json"]);
}

#[test]
fn errors_page_matches_the_code() {
    assert_generated("errors", &["docs/errors.md"]);
}

#[test]
fn openapi_document_is_public_and_names_the_data_plane() {
    let (_, daypass) = Cluster::shared();
    let answer = daypass.owner.anonymous().get(&format!("{}/openapi.json", daypass.url)).expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let mut served = answer.json();
    for server in served["servers"].as_array_mut().unwrap() {
        assert_eq!(server["variables"]["dataPlaneId"]["default"], "dp-1");
        server["variables"]["dataPlaneId"]["default"] = json!("my-data-plane");
    }
    let expected: Value = serde_json::from_str(&checked_in("docs/openapi.json")).unwrap();
    assert_eq!(served, expected);
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn openapi_document_lists_every_error_code() {
    let mut used = BTreeSet::new();
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(file).unwrap();
        for rest in text.split("DP_ERR_").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            used.insert(format!("DP_ERR_{name}"));
        }
    }
    let document: Value = serde_json::from_str(&checked_in("docs/openapi.json")).unwrap();
    let codes = document["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
    let documented = codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    assert!(used.len() > 10);
    assert_eq!(used, documented);
}
