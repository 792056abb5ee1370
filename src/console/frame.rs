//! What all pages share: the frame around them, times, and the page of an error.

use askama::Template;
use axum::Extension;
use axum::response::{Html, IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use http::StatusCode;

use super::assets::{ICON, SCRIPT, STYLE};
use crate::api::State;
use crate::api::problem::{Code, Problem, Told};

/// The frame around a page.
pub(super) struct Frame {
    /// In every title and header, so that nobody ends access in the wrong cluster.
    pub(super) data_plane: String,
    /// Who is signed in.
    pub(super) visitor: Option<Who>,
    pub(super) now: When,
    /// What is wrong with what was sent.
    pub(super) error: Option<String>,
    /// What has been done.
    pub(super) notice: Option<&'static str>,
}

/// Who is signed in.
#[derive(Clone)]
pub(super) struct Who {
    pub(super) name: String,
    pub(super) is_member: bool,
    pub(super) signed_in_until: When,
}

/// A time on a page.
#[derive(Clone, Copy)]
pub(super) struct When(pub(super) DateTime<Utc>);

/// What has been done.
const NOTICES: [(&str, &str); 11] = [
    (
        "granted-before",
        "This grant was made before. Its password was shown then; if it is lost, issue a new credential.",
    ),
    ("ended", "The access has ended."),
    ("gone", "The member had ended before."),
    ("extended", "The end has been changed."),
    ("revoked", "The kubeconfig is revoked."),
    ("renamed", "The token has a new name."),
    ("token-revoked", "The token is revoked."),
    ("token-gone", "The token had been revoked before."),
    ("rotated", "The token has a new secret."),
    ("signed-out", "You are signed out."),
    ("session-ended", "Your session has ended. Sign in again to go on; what you typed is kept, except secrets."),
];

impl When {
    /// For programs.
    pub(super) fn iso(&self) -> String {
        self.0.to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        self.0.format("%Y-%m-%d %H:%M UTC").to_string()
    }

    /// How long until then, in words.
    pub(super) fn left(&self, now: &Self) -> String {
        in_words(self.0 - now.0)
    }
}

/// A duration in its two largest units. The script writes it in the same way (`inWords` in console.js).
pub(super) fn in_words(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds().max(0);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {} s", seconds % 60),
        _ => format!("{hours} h {minutes} min"),
    }
}

impl Frame {
    pub(super) fn new(state: &State, visitor: Option<Who>) -> Self {
        let data_plane = state.settings.data_plane_id.clone();
        Self { data_plane, visitor, now: When(state.clock.now()), error: None, notice: None }
    }

    /// The same, with what is wrong.
    pub(super) fn with_error(self, problem: Option<&Problem>) -> Self {
        Self { error: problem.map(Problem::explanation), ..self }
    }

    /// The same, with what has been done. Only these notices are shown, whatever a link says.
    pub(super) fn with_notice(self, name: &str) -> Self {
        let notice = NOTICES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        Self { notice, ..self }
    }

    pub(super) fn style(&self) -> &str {
        &STYLE.path
    }

    pub(super) fn icon(&self) -> &str {
        &ICON.path
    }

    pub(super) fn script(&self) -> &str {
        &SCRIPT.path
    }
}

/// Renders a page with this status.
pub(super) fn render(status: StatusCode, page: &impl Template) -> Result<Response, Problem> {
    let html = page.render().map_err(|_| Problem::new(Code::Internal))?;
    Ok((status, Extension(Told), Html(html)).into_response())
}

/// Whether the page of a form can show this problem. After the others it would fail as well, or cost too much.
pub(super) fn fits_page(problem: &Problem) -> bool {
    // A 503 says when to try again, too.
    problem.code != Code::NotFound && problem.retry_after().is_none()
}

/// The status of a page that may show an error.
pub(super) fn status(problem: Option<&Problem>) -> StatusCode {
    problem.map_or(StatusCode::OK, Problem::status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_two_units() {
        for (seconds, words) in [
            (-5, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (3600, "1 h 0 min"),
            (172_800, "48 h 0 min"),
        ] {
            assert_eq!(in_words(TimeDelta::seconds(seconds)), words);
        }
    }
}
