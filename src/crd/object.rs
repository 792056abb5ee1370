//! Objects as the API server wrote them, read so that nothing in one of them hides another.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use super::schema::{Unreadable, date};

/// An object of any type, taken apart but not decoded.
///
/// Whoever may patch an object decides what is in its `managedFields`: nested deeper than any decoder goes, times and
/// numbers that no type holds. The API server hands all of that out as it was written, so `managedFields` is skipped
/// without being decoded, and every other part is decoded by itself, when it is asked for. A part that cannot be
/// decoded is that object's trouble alone.
#[derive(Clone, Default)]
pub struct Object {
    metadata: BTreeMap<String, Box<RawValue>>,
    /// Everything beside the metadata.
    parts: BTreeMap<String, Box<RawValue>>,
}

impl Object {
    /// Takes an object apart.
    ///
    /// # Errors
    /// When the text is not a JSON object. The API server writes no other.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut borrowed: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text)?;
        let metadata = borrowed.remove("metadata").map_or("{}", RawValue::get);
        let mut metadata: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(metadata).unwrap_or_default();
        metadata.remove("managedFields");
        let owned = |map: BTreeMap<Cow<'_, str>, &RawValue>| {
            map.into_iter().map(|(key, raw)| (key.into_owned(), raw.to_owned())).collect()
        };
        Ok(Self { metadata: owned(metadata), parts: owned(borrowed) })
    }

    /// Its name; empty for one without, which the API server never sends.
    pub fn name(&self) -> String {
        self.meta("name").unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> Option<String> {
        self.meta("namespace")
    }

    /// Its UID.
    pub fn uid(&self) -> Option<String> {
        self.meta("uid")
    }

    /// Its version.
    pub fn resource_version(&self) -> Option<String> {
        self.meta("resourceVersion")
    }

    /// The generation of its spec; 0 where it has none.
    pub fn generation(&self) -> i64 {
        self.meta("generation").unwrap_or_default()
    }

    /// When it was created, by the API server.
    pub fn created_at(&self) -> Option<DateTime<Utc>> {
        date(&self.meta::<String>("creationTimestamp")?)
    }

    /// Whether it is being deleted. Whatever stands there counts: a deletion is never overlooked.
    pub fn is_deleting(&self) -> bool {
        self.metadata.get("deletionTimestamp").is_some_and(|raw| raw.get() != "null")
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<String> {
        self.meta::<BTreeMap<String, String>>("labels")?.remove(key)
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<String> {
        self.meta::<BTreeMap<String, String>>("annotations")?.remove(key)
    }

    fn meta<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_str(self.metadata.get(key)?.get()).ok()
    }

    /// A part of the object, such as `spec`; `null` where it has none.
    ///
    /// # Errors
    /// When the part is not of this type.
    pub fn part<T: DeserializeOwned>(&self, key: &str) -> Result<T, Unreadable> {
        let text = self.parts.get(key).map_or("null", |raw| raw.get());
        serde_json::from_str(text).map_err(|error| Unreadable::Schema(error.to_string()))
    }

    /// The whole object, without its `managedFields`, as its type.
    ///
    /// # Errors
    /// When it is not of this type. The error quotes nothing: the object can be a Secret or hold a token.
    pub fn decode<K: DeserializeOwned>(&self) -> Result<K, Unreadable> {
        let decode = || {
            let mut whole = self.parts.clone();
            whole.insert("metadata".to_owned(), to_raw_value(&self.metadata)?);
            serde_json::from_str(&serde_json::to_string(&whole)?)
        };
        decode().map_err(|_: serde_json::Error| Unreadable::Schema("not of the expected type".to_owned()))
    }
}

/// The name alone: what an object holds can be secret.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// A page of a list: each object stays text until it is parsed by itself.
#[derive(Deserialize)]
pub struct Page<'a> {
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    r#continue: String,
    #[serde(default)]
    resource_version: String,
}

impl<'a> Page<'a> {
    /// Takes a page apart.
    ///
    /// # Errors
    /// When the text is not that of a list.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Its objects.
    pub fn objects(&self) -> impl Iterator<Item = Result<Object, serde_json::Error>> {
        self.items.iter().flatten().map(|raw| Object::parse(raw.get()))
    }

    /// What asks for the next page, and the version of the list; both empty where there is none.
    pub fn continuation(&self) -> (String, String) {
        let meta: PageMeta = self.metadata.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        (meta.r#continue, meta.resource_version)
    }
}

/// One line of a watch.
#[derive(Deserialize)]
pub struct WatchLine<'a> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl<'a> WatchLine<'a> {
    /// Takes a line apart.
    ///
    /// # Errors
    /// When the text is not that of an event.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The object of the event; of a bookmark one with a version alone, of an error a `Status`.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn object(&self) -> Result<Object, serde_json::Error> {
        Object::parse(self.object.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::rbac::v1::ClusterRole;
    use serde_json::json;

    /// A value nested this deep, as text: serde_json builds no such value either.
    fn nested(depth: usize) -> String {
        format!("{}0{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
    }

    /// What an attacker writes into the bookkeeping of an object.
    fn hostile_fields() -> [String; 5] {
        [
            nested(150),
            nested(100_000),
            "1e999999".to_owned(),
            r#"[{"time":"9999-12-31T23:59:59Z"}]"#.to_owned(),
            r#"[{"fieldsV1":"\ud800"}]"#.to_owned(),
        ]
    }

    #[test]
    fn one_hostile_object_never_hides_the_others() {
        for hostile in hostile_fields() {
            let object = |name: &str, fields: &str| {
                format!(
                    r#"{{"metadata":{{"name":"{name}","uid":"u","managedFields":{fields},"labels":{{"a":"b"}}}},"spec":{{"duration":"1h"}}}}"#
                )
            };
            let list = format!(
                r#"{{"kind":"MemberList","metadata":{{"resourceVersion":"7","continue":"next"}},"items":[{},{}]}}"#,
                object("hostile", &hostile),
                object("good", "[]")
            );
            let page = Page::parse(&list).unwrap();
            let objects: Vec<Object> = page.objects().map(Result::unwrap).collect();
            assert_eq!(objects.iter().map(Object::name).collect::<Vec<_>>(), ["hostile", "good"]);
            assert!(objects.iter().all(|object| object.label("a").as_deref() == Some("b")));
            assert_eq!(objects[0].part::<serde_json::Value>("spec").unwrap(), json!({"duration": "1h"}));
            assert_eq!(page.continuation(), ("next".to_owned(), "7".to_owned()));

            let line = format!(r#"{{"type":"MODIFIED","object":{}}}"#, object("hostile", &hostile));
            let line = WatchLine::parse(&line).unwrap();
            assert_eq!((&*line.kind, line.object().unwrap().name()), ("MODIFIED", "hostile".to_owned()));
        }
    }

    #[test]
    fn a_part_that_cannot_be_read_leaves_the_others_readable() {
        let text =
            format!(r#"{{"metadata":{{"name":"a","labels":7,"uid":"u"}},"spec":{},"status":{{}}}}"#, nested(200));
        let object = Object::parse(&text).unwrap();
        assert!(object.part::<serde_json::Value>("spec").is_err());
        assert_eq!(object.part::<serde_json::Value>("status").unwrap(), json!({}));
        assert_eq!((object.label("a"), object.uid().as_deref()), (None, Some("u")));
        assert_eq!(object.part::<Option<u8>>("missing").unwrap(), None);
    }

    #[test]
    fn a_typed_object_is_read_without_its_bookkeeping() {
        for fields in hostile_fields() {
            let text = format!(
                r#"{{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{{"name":"a","managedFields":{fields}}},"rules":[{{"verbs":["get"]}}]}}"#
            );
            let role: ClusterRole = Object::parse(&text).unwrap().decode().unwrap();
            assert_eq!((role.metadata.name.as_deref(), role.rules.unwrap().len()), (Some("a"), 1));
        }
        let wrong = Object::parse(r#"{"metadata":{"name":"a"},"rules":"secret"}"#).unwrap().decode::<ClusterRole>();
        assert!(!wrong.unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn a_deletion_is_never_overlooked() {
        let deleting = |value: &str| {
            Object::parse(&format!(r#"{{"metadata":{{"deletionTimestamp":{value}}}}}"#)).unwrap().is_deleting()
        };
        assert!(deleting(r#""2026-11-23T00:00:00Z""#) && deleting(r#""9999-99-99""#) && deleting("{}"));
        assert!(!deleting("null") && !Object::parse("{}").unwrap().is_deleting());
    }

    #[test]
    fn an_object_shows_its_name_alone() {
        let object = Object::parse(r#"{"metadata":{"name":"daypass-tls"},"data":{"tls.key":"c2VjcmV0"}}"#).unwrap();
        assert_eq!(format!("{object:?}"), r#"Object { name: "daypass-tls", .. }"#);
    }
}
