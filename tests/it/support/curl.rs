//! curl, as a client of another make that speaks HTTP/2.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{Daypass, Lab};

/// Requests by curl. What it is told goes to its standard input: the arguments of a process are everybody's to read.
pub struct Curl<'a> {
    lab: &'a Lab,
    config: String,
}

impl<'a> Curl<'a> {
    /// One request, trusting the certificate that Daypass serves with.
    pub fn new(lab: &'a Lab, daypass: &Daypass, path: &str) -> Self {
        let ca = lab.fresh_folder("curl").join("ca.pem");
        fs::write(&ca, lab.serving_certificate()).unwrap();
        let url = format!("{}/dp-1{path}", daypass.url);
        Self { lab, config: String::new() }.with("url", &url).with("cacert", ca.to_str().unwrap())
    }

    /// One more option, as in curl's manual, without its dashes.
    pub fn with(mut self, option: &str, value: &str) -> Self {
        let quoted = value.replace('\\', r"\\").replace('"', r#"\""#);
        self.config.push_str(&format!("{option} = \"{quoted}\"\n"));
        self
    }

    /// The status and the body. Panics when curl gets no answer.
    #[track_caller]
    pub fn send(self) -> (u16, String) {
        let body = self.lab.fresh_folder("curl").join("body");
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
