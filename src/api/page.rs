//! The query of a list: paging and filters.

use std::collections::BTreeMap;

use url::form_urlencoded;

use super::problem::Problem;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// The largest int32, which OpenAPI declares.
const MAX_OFFSET: usize = 2_147_483_647;

/// The requested part of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The maximum number of items.
    pub(crate) limit: usize,
    /// How many items to skip.
    pub(crate) offset: usize,
    filters: BTreeMap<String, String>,
}

impl Page {
    /// Parses a query of `limit`, `offset` and these filters, each given at most once.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(crate) fn parse(query: &str, filters: &[&str]) -> Result<Self, Problem> {
        let (mut limit, mut offset, mut given) = (None, None, BTreeMap::new());
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let repeated = match key.as_ref() {
                "limit" => limit.replace(number(&key, &value, 1, MAX_LIMIT)?).is_some(),
                "offset" => offset.replace(number(&key, &value, 0, MAX_OFFSET)?).is_some(),
                name if filters.contains(&name) && value.is_empty() => {
                    return Err(Problem::field(name, "must not be empty"));
                }
                name if filters.contains(&name) => given.insert(key.to_string(), value.into_owned()).is_some(),
                _ => return Err(Problem::field(&key, "is not a parameter of this request")),
            };
            if repeated {
                return Err(Problem::field(&key, "is given twice"));
            }
        }
        Ok(Self { limit: limit.unwrap_or(DEFAULT_LIMIT), offset: offset.unwrap_or_default(), filters: given })
    }

    /// The value of a filter.
    pub(crate) fn filter(&self, name: &str) -> Option<&str> {
        self.filters.get(name).map(String::as_str)
    }

    /// The requested part of all items.
    pub(super) fn of<'a, T>(&self, all: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        all.iter().skip(self.offset).take(self.limit)
    }
}

/// Parses a query of nothing but this parameter, given at most once.
///
/// # Errors
/// 400 that names the parameter.
pub(super) fn only_parameter(query: &str, name: &str) -> Result<Option<String>, Problem> {
    let mut given = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if key != name {
            return Err(Problem::field(&key, "is not a parameter of this request"));
        }
        if value.is_empty() {
            return Err(Problem::field(name, "must not be empty"));
        }
        if given.replace(value.into_owned()).is_some() {
            return Err(Problem::field(name, "is given twice"));
        }
    }
    Ok(given)
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
    fn only_one_parameter_is_taken_once() {
        assert_eq!(only_parameter("roleId=a", "roleId").unwrap().as_deref(), Some("a"));
        assert_eq!(only_parameter("", "roleId").unwrap(), None);
        for query in ["roleId=", "roleId=a&roleId=b", "limit=1", "roleId=a&x=y"] {
            assert!(only_parameter(query, "roleId").is_err(), "{query}");
        }
    }

    #[test]
    fn page_is_bounded_and_unknown_parameters_are_refused() {
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
            "roleId=",
            "roleId",
            "roleId=&limit=1",
            "page=1",
        ] {
            let parameter = query.split('=').next().unwrap();
            assert_eq!(parse(query).unwrap_err().errors[0].field, parameter, "{query}");
        }
        assert_eq!(Page::parse("roleId=a", &[]).unwrap_err().errors[0].field, "roleId");
    }
}
