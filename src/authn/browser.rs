//! Keeps pages of other sites from using the Basic credentials that a browser remembers.
//!
//! A browser adds them to every request to Daypass, also from other sites' pages: a form can post, an image can get.
//! It never adds Bearer credentials by itself.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName};

/// Fetch Metadata (W3C): which site's page made the request, how, and for what.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Whether a page of another site had a browser send this request. Only browsers send these headers.
///
/// `own_origin` is Daypass's own (RFC 6454, section 6.2). `may_be_linked`: a link on another site, as in a chat or a
/// mail, may open this operation.
pub fn is_cross_site(headers: &HeaderMap, own_origin: &str, may_be_linked: bool) -> bool {
    let is_our_origin = Value::of(headers, &ORIGIN).is_absent_or(&[own_origin]);
    let is_our_site = Value::of(headers, &SITE).is_absent_or(&["same-origin", "none"]);
    !(is_our_origin && (is_our_site || (may_be_linked && is_link(headers))))
}

/// Whether a page of Daypass itself sent this form. Other hosts of the same site count as foreign. A request that says
/// nothing about where it comes from is refused: every browser that can use the console does.
pub fn is_own_page(headers: &HeaderMap, own_origin: &str) -> bool {
    let (origin, site) = (Value::of(headers, &ORIGIN), Value::of(headers, &SITE));
    let says_something = !matches!((&origin, &site), (Value::Absent, Value::Absent));
    says_something && origin.is_absent_or(&[own_origin]) && site.is_absent_or(&["same-origin"])
}

/// Whether a person follows a link: the window itself goes there. Then no page sees the answer or embeds it (as an
/// `iframe`, an `image`, or any other destination).
fn is_link(headers: &HeaderMap) -> bool {
    matches!(Value::of(headers, &SITE), Value::One("cross-site" | "same-site")) && is_navigation(headers)
}

/// Whether a window itself goes there, by a link, a bookmark or the address bar.
pub fn is_navigation(headers: &HeaderMap) -> bool {
    matches!(Value::of(headers, &MODE), Value::One("navigate"))
        && matches!(Value::of(headers, &DEST), Value::One("document"))
}

/// A header that a browser sends at most once.
enum Value<'a> {
    Absent,
    One(&'a str),
    /// Not text, or given twice. No browser sends that, and a proxy may have read another value.
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
