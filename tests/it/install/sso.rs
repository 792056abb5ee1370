//! The chart's issuers of people's ID tokens, as Daypass reads them.

use std::collections::BTreeSet;

use daypass::authn::oidc::{Issuer, Issuers};
use serde_json::{Value, json};

use super::chart::objects;
use crate::support::Cluster;

/// Values in which people of these issuers may authenticate.
pub(super) fn with_issuers(mut values: Value, issuers: &Value) -> Value {
    values["server"]["authMethods"] = json!(["kubernetes", "access-token", "oidc"]);
    values["oidc"] = json!({"issuers": issuers});
    values
}

/// An issuer in the chart's values. Nothing listens there.
pub(super) fn issuer() -> Value {
    json!({
        "name": "corp", "url": "https://127.0.0.1:1/corp", "audiences": ["daypass"], "usernameClaim": "email",
        "usernamePrefix": "corp:", "groupsClaim": "groups", "groupsPrefix": "corp:",
    })
}

fn changed(changes: &Value) -> Value {
    let mut issuer = issuer();
    for (field, value) in changes.as_object().unwrap() {
        issuer[field] = value.clone();
    }
    issuer
}

/// The issuers of the rendered chart, and the files that its pods mount.
fn rendered(cluster: &Cluster, values: &Value) -> (Value, BTreeSet<String>) {
    let templates = ["templates/oidc.yaml", "templates/deployment.yaml"];
    let objects = objects(&cluster.chart.render(&cluster.plane, values, &templates).unwrap());
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let data = &of_kind("ConfigMap")["data"];
    let issuers = serde_yaml::from_str(data["issuers.yaml"].as_str().unwrap()).unwrap();

    let pod = &of_kind("Deployment")["spec"]["template"]["spec"];
    let mut files = BTreeSet::new();
    for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        let mut paths: Vec<&str> = Vec::new();
        if volume["configMap"]["name"] == of_kind("ConfigMap")["metadata"]["name"] {
            paths.extend(data.as_object().unwrap().keys().map(String::as_str));
        }
        for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
            let items = ["configMap", "secret"].map(|kind| source[kind]["items"].as_array());
            let items = items.into_iter().flatten().flatten();
            paths.extend(items.map(|item| item["path"].as_str().unwrap()));
        }
        files.extend(paths.iter().map(|path| format!("{}/{path}", mount["mountPath"].as_str().unwrap())));
    }
    let args = pod["containers"][0]["args"].as_array().unwrap();
    let file = args.iter().find_map(|arg| arg.as_str()?.strip_prefix("--oidc-issuers-file=")).unwrap();
    assert!(files.contains(file), "{file}: {files:?}");
    (issuers, files)
}

#[test]
fn daypass_reads_what_the_chart_renders() {
    let (cluster, _) = Cluster::shared();
    let full = changed(&json!({
        "discoveryURL": "https://127.0.0.1:1/openid?tenant=1", "authorizedParties": ["cli"], "caConfigMap": "id-ca",
        // Texts that YAML could read as something else.
        "uidClaim": "0017", "requiredClaims": {"hd": "on", "labels": "1e3", "y": "0o17", "https://a.b/c": "null"},
        "emailVerified": "ifPresent", "maxTokenAge": "1h30m", "unprefixed": false,
        "console": {
            "clientId": "daypass", "clientSecret": {"name": "client", "key": "1e3"}, "scopes": ["on", "1e3", "[a]"],
        },
    }));
    let other = json!({
        "name": "0x1f", "url": "https://two.example.com/", "audiences": ["1234", "b"], "usernameClaim": "sub",
        "usernamePrefix": "~", "console": {"clientId": "1234"},
    });
    let (list, files) = rendered(cluster, &with_issuers(cluster.values(), &json!([full, other])));
    let issuers = Issuers::read(&list).unwrap();
    let read = issuers.get("https://127.0.0.1:1/corp").unwrap();
    let ca_file = read.ca_file.clone().unwrap();
    let secret_file = read.console.clone().unwrap().client_secret_file.unwrap();
    for file in [&ca_file, &secret_file] {
        assert!(files.contains(file.to_str().unwrap()), "{file:?}: {files:?}");
    }

    // The same as when Daypass reads the values themselves.
    let mut plain = full.clone();
    let fields = plain.as_object_mut().unwrap();
    fields.remove("caConfigMap");
    fields.insert("caFile".to_owned(), json!(ca_file));
    let console = fields["console"].as_object_mut().unwrap();
    console.remove("clientSecret");
    console.insert("clientSecretFile".to_owned(), json!(secret_file));
    let expected = Issuers::read(&json!([plain, other])).unwrap();
    assert_eq!(issuers.iter().collect::<Vec<&Issuer>>(), expected.iter().collect::<Vec<&Issuer>>());
    assert_eq!(issuers.iter().count(), 2);
}

#[test]
fn chart_refuses_what_daypass_refuses() {
    let (cluster, _) = Cluster::shared();
    let second = |changes: Value| {
        let mut other = changed(&json!({
            "name": "two", "url": "https://two.example.com", "usernamePrefix": "two:", "groupsPrefix": "two:",
        }));
        for (field, value) in changes.as_object().unwrap() {
            other[field] = value.clone();
        }
        json!([issuer(), other])
    };
    let alone = |changes: Value| json!([changed(&changes)]);
    for issuers in [
        json!([]),
        alone(json!({"url": "http://id.example.com"})),
        alone(json!({"url": "https://id.example.com?a=b"})),
        alone(json!({"discoveryURL": "http://id.example.com"})),
        alone(json!({"audiences": []})),
        alone(json!({"audiences": [""]})),
        alone(json!({"usernamePrefix": null})),
        alone(json!({"usernamePrefix": ""})),
        alone(json!({"groupsPrefix": null})),
        alone(json!({"groupsPrefix": ""})),
        alone(json!({"usernamePrefix": "system:"})),
        alone(json!({"usernameClaim": ""})),
        alone(json!({"usernameExpression": "claims.sub"})),
        alone(json!({"claimMappings": {"username": {"expression": "claims.sub"}}})),
        alone(json!({"claimValidationRules": []})),
        alone(json!({"usernamClaim": "sub"})),
        alone(json!({"requiredClaims": {"hd": 1}})),
        alone(json!({"emailVerified": "never"})),
        alone(json!({"maxTokenAge": "0m"})),
        alone(json!({"maxTokenAge": "49h"})),
        alone(json!({"console": {}})),
        alone(json!({"console": {"clientId": "cli"}})),
        alone(json!({"console": {"clientId": "daypass", "clientSecret": "s3cret"}})),
        alone(json!({"console": {"clientId": "daypass", "scopes": ["a b"]}})),
        alone(json!({"console": {"clientId": "daypass", "scopes": ["offline_access"]}})),
        second(json!({"console": {"clientId": "cli"}})),
        second(json!({"name": "corp"})),
        second(json!({"url": issuer()["url"]})),
        second(json!({"usernamePrefix": "corp:a:"})),
        second(json!({"usernamePrefix": "co"})),
        second(json!({"groupsPrefix": "corp:"})),
        second(json!({"usernamePrefix": "", "unprefixed": true})),
    ] {
        let is_read = Issuers::read(&issuers).is_ok_and(|issuers| !issuers.is_empty());
        let values = with_issuers(cluster.values(), &issuers);
        let is_rendered = cluster.chart.render(&cluster.plane, &values, &["templates/oidc.yaml"]).is_ok();
        assert!(!is_read && !is_rendered, "read: {is_read}, rendered: {is_rendered}: {issuers}");
    }
    for issuers in [
        alone(json!({})),
        second(json!({})),
        alone(json!({"usernamePrefix": "", "unprefixed": true})),
        alone(json!({"console": {"clientId": "daypass"}})),
        second(json!({"console": {"clientId": "daypass", "scopes": ["email", "a:b/[c]"]}})),
    ] {
        assert!(Issuers::read(&issuers).is_ok(), "{issuers}");
        let values = with_issuers(cluster.values(), &issuers);
        cluster.chart.render(&cluster.plane, &values, &["templates/oidc.yaml"]).unwrap();
    }
}
