//! Forms: their fields, and where to go on after signing in again.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::form_urlencoded::{self, Serializer};

use super::ROOT;
use crate::api::body;
use crate::api::problem::{Code, Problem};
use crate::clock::Entropy;

/// Fields that are never carried into a URL: secrets, and what belongs to one rendering of a form.
const NOT_CARRIED: [&str; 3] = ["password", "replaces", "next"];
/// The field that makes a form that is sent twice create one thing.
const KEY: &str = "key";
/// The longest query that the API accepts, less the room for the path of the next page.
const MAX_CARRIED: usize = 15 * 1024;

/// The fields of a submitted form, or of a query.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads a query.
    pub(super) fn of_query(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// Reads the body of a submitted form.
    pub(super) async fn read(request: Request) -> Result<Self, Problem> {
        let (parts, bytes) = body::read(request).await?;
        let is_form = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/x-www-form-urlencoded");
        if !parts.headers.get(CONTENT_TYPE).is_some_and(is_form) {
            return Err(Problem::new(Code::UnsupportedMediaType));
        }
        Ok(Self(form_urlencoded::parse(&bytes).into_owned().collect()))
    }

    /// The value of a field, if it is filled in.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// The value of a field that may be given once, if it is filled in.
    ///
    /// # Errors
    /// If it is given more often: programs differ in which one counts.
    pub(super) fn once(&self, name: &str) -> Result<Option<&str>, ()> {
        let count = self.0.iter().filter(|(key, _)| key == name).count();
        if count > 1 { Err(()) } else { Ok(self.get(name)) }
    }

    /// The value of a field, or nothing.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The key of a form that creates something, so that sending it twice creates one thing. A refused form keeps its
    /// key: it has created nothing. If the key `is_spent`, the form is another one from now on.
    pub(super) fn key(&self, entropy: &Entropy, is_spent: bool) -> Result<String, Problem> {
        match self.get(KEY).filter(|_| !is_spent) {
            Some(key) => Ok(key.to_owned()),
            None => Ok(entropy.uuid()?.to_string()),
        }
    }

    /// The values of a field that can be ticked several times.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// These fields as the body of a REST request, so that both have the same rules. Empty fields are left out.
    pub(super) fn body<T: DeserializeOwned>(&self, names: &[&str]) -> Result<T, Problem> {
        self.body_with_lists(names, &[])
    }

    /// The same, with fields that can be ticked several times.
    pub(super) fn body_with_lists<T: DeserializeOwned>(&self, names: &[&str], lists: &[&str]) -> Result<T, Problem> {
        let given = names.iter().filter_map(|name| Some(((*name).to_owned(), Value::from(self.get(name)?))));
        let lists = lists.iter().map(|name| ((*name).to_owned(), self.all(name).collect()));
        body::parse(Value::from(given.chain(lists).collect::<Map<_, _>>()).to_string().as_bytes())
    }

    /// These fields alone.
    pub(super) fn just(&self, names: &[&str]) -> Self {
        Self(self.0.iter().filter(|(name, _)| names.contains(&name.as_str())).cloned().collect())
    }

    /// These fields as a query, without the empty ones.
    pub(super) fn only(&self, names: &[&str]) -> String {
        let asked = self.0.iter().filter(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
        Serializer::new(String::new()).extend_pairs(asked).finish()
    }

    /// The page of the form that posts to `path`, with these fields in it, so that nothing is lost by signing in
    /// again. Nothing has been done yet, so it is another form.
    pub(super) fn carried_to(&self, path: &str) -> String {
        self.carried(path, |name| name != KEY)
    }

    /// The same after a failure. It may have been done nevertheless, so it stays the same form.
    pub(super) fn carried_back_to(&self, path: &str) -> String {
        self.carried(path, |_| true)
    }

    fn carried(&self, path: &str, is_carried: impl Fn(&str) -> bool) -> String {
        let page = page_of(path);
        // The other forms of a page have a line of a table each.
        if path != page && !path.ends_with("/extend") {
            return page;
        }
        let is_carried = |name: &str| !NOT_CARRIED.contains(&name) && is_carried(name);
        let carried = self.0.iter().filter(|(name, value)| is_carried(name) && !value.is_empty());
        let query = Serializer::new(String::new()).extend_pairs(carried).finish();
        if query.is_empty() || query.len() > MAX_CARRIED { page } else { format!("{page}?{query}") }
    }
}

/// Where an error page leads back to: the page of the form, which fills it in when it has been read.
#[derive(Clone, Default)]
pub(super) struct Back(Arc<OnceLock<String>>);

impl Back {
    /// Leads back to the form that posts to `path`, with these entries.
    pub(super) fn fill_in(&self, path: &str, fields: &Fields) {
        // A request has one form.
        let _ = self.0.set(fields.carried_back_to(path));
    }

    /// The page, if a form has been read.
    pub(super) fn page(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

/// The page that has the form which posts to `path`.
pub(super) fn page_of(path: &str) -> String {
    let below = path.strip_prefix(ROOT).unwrap_or_default();
    let parts: Vec<&str> = below.split('/').skip(1).collect();
    match parts[..] {
        ["members", id, _, ..] => format!("{ROOT}/members/{id}"),
        [page @ ("grant" | "me" | "tokens" | "members"), ..] => format!("{ROOT}/{page}"),
        _ => format!("{ROOT}/"),
    }
}

/// A page of the console to go on to; `None` for anything else, so that no link leads elsewhere.
pub(super) fn next_page(asked: &str) -> Option<&str> {
    let rest = asked.strip_prefix(ROOT)?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    let is_page = ["/members", "/grant", "/me", "/tokens"].iter().any(|page| is_at(rest, page));
    (is_page && asked.bytes().all(is_plain) && !rest.contains("//")).then_some(asked)
}

/// Whether a path, with its query, is this page or below it.
pub(super) fn is_at(path: &str, page: &str) -> bool {
    path.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_console_follow_a_sign_in() {
        for page in ["/console/members", "/console/members/view.a?hours=3", "/console/me", "/console/grant?x=%20y"] {
            assert_eq!(next_page(page), Some(page));
        }
        for elsewhere in [
            "",
            "/",
            "//evil.example",
            "https://evil.example/console/me",
            "/console",
            "/console/",
            "/console.evil/me",
            "/console/meadow",
            "/console//evil.example",
            "/console/me//x",
            "/console/me\\x",
            "/console/me\r\nx",
            "/console/sign-out",
            "/p1/gateway",
            "/console/me é",
        ] {
            assert_eq!(next_page(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn secrets_are_never_carried() {
        let fields = Fields::of_query(Some("username=a%26b&password=dpp_x&key=k&replaces=r&next=n&empty="));
        assert_eq!(fields.carried_to("/console/grant"), "/console/grant?username=a%26b");
        assert_eq!(fields.carried_back_to("/console/grant"), "/console/grant?username=a%26b&key=k");
        let long = Fields(vec![("description".to_owned(), "ü".repeat(4096))]);
        assert_eq!(long.carried_to("/console/grant"), "/console/grant");
    }

    #[test]
    fn entries_are_carried_to_their_own_form_alone() {
        let fields = Fields::of_query(Some("name=n&duration=3"));
        for (path, page) in [
            ("/console/tokens", "/console/tokens?name=n&duration=3"),
            ("/console/tokens/x/rename", "/console/tokens"),
            ("/console/members/view.a/extend", "/console/members/view.a?name=n&duration=3"),
            ("/console/members/view.a/end", "/console/members/view.a"),
            ("/console/sign-out", "/console/"),
        ] {
            assert_eq!(fields.carried_to(path), page);
        }
    }

    #[test]
    fn form_leads_back_to_its_page() {
        for (path, page) in [
            ("/console/grant", "/console/grant"),
            ("/console/members/view.a/extend", "/console/members/view.a"),
            ("/console/members/view.a/kubeconfigs/x/revoke", "/console/members/view.a"),
            ("/console/me/kubeconfigs/x/revoke", "/console/me"),
            ("/console/tokens/x/rotate", "/console/tokens"),
            ("/console/sign-out", "/console/"),
        ] {
            assert_eq!(page_of(path), page);
        }
    }
}
