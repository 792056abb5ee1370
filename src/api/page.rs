//! The query of a list.

use std::collections::BTreeMap;

use url::form_urlencoded;

use super::problem::Problem;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// The largest number of OpenAPI's int32.
const MAX_OFFSET: usize = 2_147_483_647;

/// Which part of a list is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The most items.
    pub(super) limit: usize,
    /// How many come before.
    pub(super) offset: usize,
    filters: BTreeMap<String, String>,
}

impl Page {
    /// Reads a query that may have these parameters besides `limit` and `offset`, each once.
    ///
    /// # Errors
    /// 400, which names the parameter.
    pub(super) fn parse(query: &str, filters: &[&str]) -> Result<Self, Problem> {
        let (mut limit, mut offset, mut given) = (None, None, BTreeMap::new());
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let repeated = match key.as_ref() {
                "limit" => limit.replace(number(&key, &value, 1, MAX_LIMIT)?).is_some(),
                "offset" => offset.replace(number(&key, &value, 0, MAX_OFFSET)?).is_some(),
                name if filters.contains(&name) => given.insert(key.to_string(), value.into_owned()).is_some(),
                _ => return Err(Problem::field(&key, "is not a parameter of this request")),
            };
            if repeated {
                return Err(Problem::field(&key, "is given twice"));
            }
        }
        Ok(Self { limit: limit.unwrap_or(DEFAULT_LIMIT), offset: offset.unwrap_or_default(), filters: given })
    }

    /// The value of a parameter.
    pub(super) fn filter(&self, name: &str) -> Option<&str> {
        self.filters.get(name).map(String::as_str)
    }

    /// This part of all.
    pub(super) fn of<'a, T>(&self, all: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        all.iter().skip(self.offset).take(self.limit)
    }
}

fn number(key: &str, text: &str, least: usize, most: usize) -> Result<usize, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| Problem::field(key, format!("must be a whole number from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded_and_strict() {
        let parse = |query| Page::parse(query, &["roleId"]);
        assert_eq!(parse("").unwrap(), Page { limit: 100, offset: 0, filters: BTreeMap::new() });
        let page = parse("limit=1000&offset=7&roleId=a").unwrap();
        assert_eq!((page.limit, page.offset, page.filter("roleId")), (1000, 7, Some("a")));
        for query in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=+1",
            "limit=",
            "offset=x",
            "offset=99999999999999999999",
            "limit=1&limit=2",
            "roleId=a&roleId=a",
            "page=1",
        ] {
            assert!(parse(query).is_err(), "{query}");
        }
        assert!(Page::parse("roleId=a", &[]).is_err());
    }
}
