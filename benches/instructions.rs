//! The hot paths, each repeated as often as told, for a count of instructions that needs no quiet machine
//! (`make profile`).
//!
//! `instructions` lists the paths; `instructions PATH N` takes one N times.

use std::env;
use std::hint::black_box;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result, bail};
use daypass::controller::steps_for;
use daypass::crd::{Object, read_member};
use daypass::domain::member::{Credential, Member};
use daypass::domain::member_id::MemberId;
use daypass::domain::role::RoleId;

/// A Member as the API server returns it.
const MEMBER: &str = r#"{"apiVersion": "daypass.dev/v1alpha1", "kind": "Member", "metadata": {
    "name": "k7f3x9qm", "namespace": "daypass-projects-view", "uid": "6f0f6f0a-3c52-4a05-8b0c-0d6cf5b0a1f1",
    "resourceVersion": "4711", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"duration": "1h", "username": "Support team", "description": "Case 4711",
        "createdBy": "system:serviceaccount:default:owner"},
    "status": {"phase": "Active", "expiresAt": "2026-01-01T01:00:00Z", "observedGeneration": 1,
        "credentialHash": "0000000000000000000000000000000000000000000000000000000000000000"}}"#;

const PATHS: [&str; 3] = ["verify-credential", "decode-member", "plan"];

fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let args: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let [path, times] = args.as_slice() else {
        return Ok(writeln!(io::stdout(), "{}", PATHS.join("\n"))?);
    };
    let times: u32 = times.parse()?;
    let role = RoleId::parse("projects-view").context("not a role")?;
    let id = MemberId::parse("projects-view.k7f3x9qm").context("not an id")?;
    let credential = Credential::new(id, &[7; 32]);
    let (text, hash) = (credential.expose().to_owned(), credential.hash());
    let read = || -> Result<Member> { Ok(read_member(&role, &Object::parse(black_box(MEMBER))?)?) };
    let member = read()?;
    let now = member.created_at;
    for _ in 0..times {
        match path.as_str() {
            "verify-credential" => {
                let presented = Credential::parse(black_box(&text)).context("not a credential")?;
                black_box(hash.matches(&presented));
            }
            "decode-member" => {
                black_box(read()?);
            }
            "plan" => {
                black_box(steps_for(black_box(member.clone()), now));
            }
            other => bail!("no path {other}; there are: {}", PATHS.join(", ")),
        }
    }
    Ok(())
}
