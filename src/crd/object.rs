//! Objects, lists and watch events as the API server sends them, decoded one by one so that a bad one hides no other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use super::schema::{Unreadable, date};

/// An object of any type, split into its parts but not decoded.
///
/// Anyone who may patch an object controls its `managedFields`, which may be nested deeper than a decoder's limit or
/// contain absurd times and numbers. The API server returns them as written. So this skips `managedFields` and decodes
/// each other part on its own, on request. A part that cannot be decoded affects no other part and no other object.
#[derive(Clone, Default)]
pub struct Object {
    metadata: BTreeMap<String, Box<RawValue>>,
    /// All parts except the metadata.
    parts: BTreeMap<String, Box<RawValue>>,
}

impl Object {
    /// Splits an object into its parts.
    ///
    /// # Errors
    /// If the text is not a JSON object, which the API server never sends.
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

    /// Its name; empty if missing, which the API server never sends.
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

    /// Its resourceVersion.
    pub fn resource_version(&self) -> Option<String> {
        self.meta("resourceVersion")
    }

    /// The generation of its spec; 0 if missing.
    pub fn generation(&self) -> i64 {
        self.meta("generation").unwrap_or_default()
    }

    /// When it was created, by the API server's clock.
    pub fn created_at(&self) -> Option<DateTime<Utc>> {
        date(&self.meta::<String>("creationTimestamp")?)
    }

    /// Whether it is being deleted. Any deletionTimestamp counts, even an invalid one, so that no deletion is missed.
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

    /// Decodes a part of the object, such as `spec`. A missing part is `null`.
    ///
    /// # Errors
    /// If the part is not of this type.
    pub fn part<T: DeserializeOwned>(&self, key: &str) -> Result<T, Unreadable> {
        let text = self.parts.get(key).map_or("null", |raw| raw.get());
        serde_json::from_str(text).map_err(|error| Unreadable::Schema(error.to_string()))
    }

    /// Decodes the whole object, without its `managedFields`.
    ///
    /// # Errors
    /// If it is not of this type. The error quotes nothing, because the object may be a Secret or contain a token.
    pub fn decode<K: DeserializeOwned>(&self) -> Result<K, Unreadable> {
        let decode = || {
            let mut whole = self.parts.clone();
            whole.insert("metadata".to_owned(), to_raw_value(&self.metadata)?);
            serde_json::from_str(&serde_json::to_string(&whole)?)
        };
        decode().map_err(|_: serde_json::Error| Unreadable::Schema("not of the expected type".to_owned()))
    }
}

/// Shows the name alone, because the content may be secret.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// A page of a list. Each object stays text until it is parsed on its own.
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
    /// Splits a page into its objects.
    ///
    /// # Errors
    /// If the text is not a list.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Its objects.
    pub fn objects(&self) -> impl Iterator<Item = Result<Object, serde_json::Error>> {
        self.items.iter().flatten().map(|raw| Object::parse(raw.get()))
    }

    /// The `continue` token of the next page and the list's resourceVersion; each is empty if missing.
    pub fn continuation(&self) -> (String, String) {
        let meta: PageMeta = self.metadata.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        (meta.r#continue, meta.resource_version)
    }
}

/// A line of a watch response.
#[derive(Deserialize)]
pub struct WatchLine<'a> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl<'a> WatchLine<'a> {
    /// Splits a line into type and object.
    ///
    /// # Errors
    /// If the text is not a watch event.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The event's object. A bookmark's has a resourceVersion only; an error's is a `Status`.
    ///
    /// # Errors
    /// If it is not a JSON object.
    pub fn object(&self) -> Result<Object, serde_json::Error> {
        Object::parse(self.object.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::rbac::v1::ClusterRole;
    use serde_json::json;

    /// A value nested this deep. As text, because serde_json cannot build it.
    fn nested(depth: usize) -> String {
        format!("{}0{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
    }

    /// `managedFields` that an attacker might write.
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
    fn hostile_object_does_not_hide_the_others() {
        for hostile in hostile_fields() {
            let object = |name: &str, fields: &str| {
                let metadata =
                    format!(r#"{{"name":"{name}","uid":"u","managedFields":{fields},"labels":{{"a":"b"}}}}"#);
                format!(r#"{{"metadata":{metadata},"spec":{{"duration":"1h"}}}}"#)
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
    fn invalid_part_does_not_affect_other_parts() {
        let text =
            format!(r#"{{"metadata":{{"name":"a","labels":7,"uid":"u"}},"spec":{},"status":{{}}}}"#, nested(200));
        let object = Object::parse(&text).unwrap();
        assert!(object.part::<serde_json::Value>("spec").is_err());
        assert_eq!(object.part::<serde_json::Value>("status").unwrap(), json!({}));
        assert_eq!((object.label("a"), object.uid().as_deref()), (None, Some("u")));
        assert_eq!(object.part::<Option<u8>>("missing").unwrap(), None);
    }

    #[test]
    fn typed_object_is_decoded_without_managed_fields() {
        for fields in hostile_fields() {
            let kind = r#""apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole""#;
            let metadata = format!(r#"{{"name":"a","managedFields":{fields}}}"#);
            let text = format!(r#"{{{kind},"metadata":{metadata},"rules":[{{"verbs":["get"]}}]}}"#);
            let role: ClusterRole = Object::parse(&text).unwrap().decode().unwrap();
            assert_eq!((role.metadata.name.as_deref(), role.rules.unwrap().len()), (Some("a"), 1));
        }
        let wrong = Object::parse(r#"{"metadata":{"name":"a"},"rules":"secret"}"#).unwrap().decode::<ClusterRole>();
        assert!(!wrong.unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn invalid_deletion_timestamp_counts_as_deleting() {
        let deleting = |value: &str| {
            Object::parse(&format!(r#"{{"metadata":{{"deletionTimestamp":{value}}}}}"#)).unwrap().is_deleting()
        };
        assert!(deleting(r#""2026-11-23T00:00:00Z""#) && deleting(r#""9999-99-99""#) && deleting("{}"));
        assert!(!deleting("null") && !Object::parse("{}").unwrap().is_deleting());
    }

    #[test]
    fn debug_shows_only_the_name() {
        let object = Object::parse(r#"{"metadata":{"name":"daypass-tls"},"data":{"tls.key":"c2VjcmV0"}}"#).unwrap();
        assert_eq!(format!("{object:?}"), r#"Object { name: "daypass-tls", .. }"#);
    }
}
