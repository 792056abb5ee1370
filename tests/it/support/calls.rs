//! The calls of Daypass in the API server's audit log.

use std::fs;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::http::Answer;
use super::objects::time;
use super::wall_test::DAYPASS;
use super::{Cluster, eventually};

/// A call that the API server has answered.
#[derive(Debug)]
pub struct Call {
    /// The API server's `auditID`; of a REST request's call, `<request id>/<n>`.
    id: String,
    /// Kubernetes' verb, the resource and the subresource; for what is no resource, the path.
    pub what: String,
    pub name: String,
    pub uri: String,
    pub status: u64,
    pub at: DateTime<Utc>,
}

impl Call {
    fn of(event: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (object, uri) = (&event["objectRef"], text(&event["requestURI"]));
        let mut target = text(&object["resource"]);
        if target.is_empty() {
            target = uri.split('?').next().unwrap().to_owned();
        } else if let Some(subresource) = object["subresource"].as_str() {
            target = format!("{target}/{subresource}");
        }
        Self {
            id: text(&event["auditID"]),
            what: format!("{} {target}", text(&event["verb"])),
            name: text(&object["name"]),
            uri,
            status: event["responseStatus"]["code"].as_u64().unwrap(),
            at: time(&event["requestReceivedTimestamp"]),
        }
    }

    /// Whether a REST request made it.
    fn is_of_request(&self) -> bool {
        self.id.contains('/')
    }

    /// What it did, with an unusual result.
    pub fn label(&self) -> String {
        let dry_run = if self.uri.contains("dryRun=All") { ", dry run" } else { "" };
        let status = if self.status < 300 { String::new() } else { format!(" → {}", self.status) };
        format!("{}{dry_run}{status}", self.what)
    }
}

impl Cluster {
    /// The calls of a REST request that Daypass has answered, in the order in which it sent them. They are told apart
    /// by their ids, so other requests at the same time do not matter.
    #[track_caller]
    pub fn calls_of(&self, answer: &Answer) -> Vec<Call> {
        let prefix = format!("{}/", answer.header("x-request-id"));
        // The API server logs that it has received a call before it handles it, and that it is done after it answers.
        let (mut calls, received) = eventually("all calls of the request are done", || {
            let (calls, received) = self.logged_calls(&prefix);
            (calls.len() == received).then_some((calls, received))
        });
        let number = |call: &Call| call.id[prefix.len()..].parse::<usize>().unwrap();
        calls.sort_by_key(number);
        assert!(calls.iter().map(number).eq(1..=received), "{calls:?}");
        // The API server was too busy for them: how often depends on the machine.
        calls.retain(|call| call.status != 429);
        calls
    }

    /// The calls of Daypass that no REST request made and that the API server has answered, by the time when it
    /// received them.
    pub fn background_calls(&self) -> Vec<Call> {
        let mut calls = self.logged_calls(&format!("\"username\":\"{DAYPASS}\"")).0;
        calls.retain(|call| !call.is_of_request());
        calls.sort_by_key(|call| call.at);
        calls
    }

    /// The calls whose lines in the log contain a text: those that are done, and the number of all.
    fn logged_calls(&self, text: &str) -> (Vec<Call>, usize) {
        let log = fs::read_to_string(self.plane.audit_log()).unwrap();
        // The last line may be incomplete.
        let events = log.lines().filter(|line| line.contains(text)).map_while(|it| serde_json::from_str(it).ok());
        let (mut done, mut received) = (Vec::new(), 0);
        for event in events {
            let event: Value = event;
            match event["stage"].as_str().unwrap() {
                "RequestReceived" => received += 1,
                "ResponseComplete" => done.push(Call::of(&event)),
                _ => {}
            }
        }
        (done, received)
    }
}
