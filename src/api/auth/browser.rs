//! What keeps pages of other sites from using the Basic credentials that a browser remembers.
//!
//! A browser adds them to every request to Daypass, whoever's page makes it: a form can post, an image can get. Bearer
//! credentials it never adds by itself.

use axum::extract::MatchedPath;
use http::header::ORIGIN;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};

use crate::api::settings::Settings;

/// Fetch Metadata (W3C): which site's page made the request, how, and for what.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The download that a person may come to from somebody else's page: by a link in a chat or a mail.
const DOWNLOAD: &str = "/members/{id}/kubeconfig";

/// Whether a page of another site had a browser send this. Clients that are no browsers send none of these headers.
pub(super) fn is_foreign(parts: &Parts, settings: &Settings) -> bool {
    let origin = settings.origin();
    let is_our_origin = Value::of(&parts.headers, &ORIGIN).is_absent_or(&[&origin]);
    let is_our_site = Value::of(&parts.headers, &SITE).is_absent_or(&["same-origin", "none"]);
    !(is_our_origin && (is_our_site || is_link_to_download(parts)))
}

/// Whether a person follows a link to the download: the window itself goes there. No page gets to see what is
/// answered, and nothing of it is shown in one (`iframe`, `image`, `empty` and all other destinations).
fn is_link_to_download(parts: &Parts) -> bool {
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    parts.method == Method::GET
        && route.ends_with(DOWNLOAD)
        && matches!(Value::of(&parts.headers, &SITE), Value::One("cross-site" | "same-site"))
        && matches!(Value::of(&parts.headers, &MODE), Value::One("navigate"))
        && matches!(Value::of(&parts.headers, &DEST), Value::One("document"))
}

/// A header that a browser sends at most once.
enum Value<'a> {
    Absent,
    One(&'a str),
    /// No text, or given twice: no browser sends that, and what stands in between may have read another one.
    Unreadable,
}

impl<'a> Value<'a> {
    fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => value.to_str().map_or(Self::Unreadable, Self::One),
            (Some(_), Some(_)) => Self::Unreadable,
        }
    }

    fn is_absent_or(&self, allowed: &[&str]) -> bool {
        match self {
            Self::Absent => true,
            Self::One(value) => allowed.contains(value),
            Self::Unreadable => false,
        }
    }
}
