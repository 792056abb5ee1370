//! The web console in a real browser: Debian's Chromium, driven by the scripts in tests/console.
//!
//! A test gives a script what it needs on its standard input, never as arguments. A script asks for what only the test
//! can do (a deed), one line of JSON each, and gets one line as the answer.

mod deeds;
mod outage;
mod pictures;
mod stories;

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use daypass_local::guarded;
use serde_json::{Value, json};

use crate::support::{Cluster, DEADLINE, Daypass, Http, Pool, Role};
pub(crate) use deeds::Deeds;

/// The rights of an owner in one role.
const VERBS: [&str; 5] = ["create", "list", "get", "update", "delete"];
const RESOURCES: [&str; 3] = ["members", "members/credentials", "members/kubeconfigs"];

/// The folder in the environment variable that the Makefile sets: Node, Chromium and the packages.
#[track_caller]
fn tools() -> PathBuf {
    let folder = env::var_os("CONSOLE_TOOLS").unwrap_or_else(|| {
        panic!(
            "the environment variable CONSOLE_TOOLS must name the browser's folder: use `make test`, which makes it"
        )
    });
    let folder = PathBuf::from(folder);
    for program in ["node", "chromium"] {
        assert!(
            folder.join(program).exists(),
            "{program} is missing in {}: run `make console-tools`",
            folder.display()
        );
    }
    folder
}

/// An owner with all rights in one role, which nobody else uses, and the right to generate access tokens.
fn owner(cluster: &Cluster, daypass: &Daypass, role: &Role) -> Http {
    cluster.with_privilege(cluster.caller(daypass, &VERBS, &RESOURCES, Some(role)), "generate")
}

/// What every script gets.
fn context(cluster: &Cluster, daypass: &Daypass, role: &Role, owner: &Http) -> Value {
    json!({
        "url": daypass.url, "dataPlane": "dp-1", "certificate": cluster.serving_certificate(),
        "role": role.id, "owner": owner.token(), "manager": daypass.owner.token(),
    })
}

/// Runs a script of tests/console to its end. Panics with its output unless it succeeds.
#[track_caller]
pub(crate) fn run(script: &str, context: &Value, deeds: &Deeds<'_>) {
    // Their scripts stand next to each other, so all tests that run at once would be browsers, and each crawl.
    static BROWSERS: Pool<()> = Pool::new(3);
    let _browser = BROWSERS.take(|| ());
    let tools = tools();
    let folder = deeds.cluster.fresh_folder("browser");
    let errors = folder.join("stderr");
    let mut command = guarded(&tools.join("node"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console").join(script));
    command.env("CONSOLE_TOOLS", &tools).env("HOME", &folder).env("DEADLINE", DEADLINE.as_millis().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&errors).unwrap());
    let mut node = command.spawn().unwrap();
    let mut input = node.stdin.take().unwrap();
    writeln!(input, "{context}").unwrap();
    let mut output = String::new();
    for line in BufReader::new(node.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.strip_prefix("ask ") {
            Some(asked) => writeln!(input, "{}", deeds.answer(&serde_json::from_str(asked).unwrap())).unwrap(),
            None => output += &format!("{line}\n"),
        }
    }
    let status = node.wait().unwrap();
    let errors = fs::read_to_string(&errors).unwrap();
    assert!(status.success(), "{script}: {status}\n{output}\n{errors}");
    assert!(output.contains("\ndone: "), "{script} ran no case to its end:\n{output}\n{errors}");
}
