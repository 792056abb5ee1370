//! Reading objects so that none of them keeps the others of its list from being read.

use std::borrow::Cow;

use kube::Resource;
use kube::core::{ApiResource, DynamicObject, DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// An object of whatever content.
pub type Object = Tolerant<false>;
/// The metadata of an object: nothing else is asked for.
pub type Metadata = Tolerant<true>;

/// Decodes whatever the API server sends. `managedFields` is passed over: nothing here needs it, anyone who may patch an object may write
/// a time into it that the API server takes and its clients' types cannot hold, and one such object would hide its whole list.
/// Of metadata that still cannot be read, what names the object is kept.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Tolerant<const METADATA_ONLY: bool>(pub DynamicObject);

impl<'de, const METADATA_ONLY: bool> Deserialize<'de> for Tolerant<METADATA_ONLY> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let named = ["name", "namespace", "uid", "resourceVersion"].map(|key| (key, object["metadata"][key].as_str()));
        let named: Value = named.iter().filter_map(|(key, text)| Some(((*key).to_owned(), json!((*text)?)))).collect();
        let object = serde_json::from_value(object);
        object
            .or_else(|_| serde_json::from_value(json!({ "metadata": named })))
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

impl<const METADATA_ONLY: bool> Resource for Tolerant<METADATA_ONLY> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(resource)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(resource)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(resource)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(resource)
    }

    fn metadata_api() -> bool {
        METADATA_ONLY
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_whatever_one_of_its_objects_holds() {
        let list = json!([
            {"metadata": {"name": "good", "namespace": "n", "labels": {"a": "b"}}, "spec": {"duration": "1h"}},
            {"metadata": {"name": "odd", "managedFields": [{"time": "9999-12-31T23:59:59Z"}], "labels": {"a": "b"}}},
            {"metadata": {"name": "worse", "namespace": "n", "uid": "u", "creationTimestamp": "9999-12-31T23:59:59Z"}, "spec": {}},
        ]);
        let read: Vec<Object> = serde_json::from_value(list).unwrap();
        let names: Vec<_> = read.iter().map(|object| object.0.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["good", "odd", "worse"]);
        assert_eq!(read[0].0.data["spec"]["duration"], "1h");
        assert!(read[1].0.metadata.labels.is_some());
        assert_eq!((read[2].0.metadata.uid.as_deref(), read[2].0.data.get("spec")), (Some("u"), None));
    }
}
