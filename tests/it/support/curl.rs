//! curl: an independent client that speaks HTTP/2.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{Cluster, Daypass};

/// A request by curl. Its options go to standard input, since everybody can read a process's arguments.
pub struct Curl<'a> {
    cluster: &'a Cluster,
    config: String,
}

impl<'a> Curl<'a> {
    /// A request that trusts the certificate that Daypass serves.
    pub fn new(cluster: &'a Cluster, daypass: &Daypass, path: &str) -> Self {
        let ca = cluster.fresh_folder("curl").join("ca.pem");
        fs::write(&ca, cluster.serving_certificate()).unwrap();
        let url = format!("{}/dp-1{path}", daypass.url);
        Self { cluster, config: String::new() }.with("url", &url).with("cacert", ca.to_str().unwrap())
    }

    /// Adds an option, named as in curl's manual without the dashes.
    pub fn with(mut self, option: &str, value: &str) -> Self {
        let quoted = value.replace('\\', r"\\").replace('"', r#"\""#);
        self.config.push_str(&format!("{option} = \"{quoted}\"\n"));
        self
    }

    /// The status and the body. Panics when curl gets no answer.
    #[track_caller]
    pub fn send(self) -> (u16, String) {
        let body = self.cluster.fresh_folder("curl").join("body");
        let config = self.with("output", body.to_str().unwrap()).with("write-out", "%{http_code}").config;
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--config", "-"]);
        let mut curl = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        curl.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        let output = curl.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap().parse().unwrap(), fs::read_to_string(body).unwrap_or_default())
    }
}
