//! The walls: the chart's admission policies, as this version of Daypass ships them, and whether what a cluster has
//! is the same.

use std::fmt;

use serde_json::{Map, Value, json};

/// One admission policy. Its binding has the same name.
#[derive(Debug, Clone, Copy)]
pub struct Wall {
    /// The policy's name.
    pub name: &'static str,
    /// The policy's `spec` in YAML, with the names that the chart fills in.
    template: &'static str,
}

/// The chart renders the same files.
macro_rules! wall {
    ($name:literal) => {
        Wall {
            name: $name,
            template: include_str!(concat!("../../deploy/charts/daypass/files/walls/", $name, ".yaml")),
        }
    };
}

/// All walls. The chart grants Daypass to read exactly these (`daypass.walls` in its `_helpers.tpl`).
pub const WALLS: [Wall; 12] = [
    wall!("daypass-accesstokens"),
    wall!("daypass-certificates"),
    wall!("daypass-member-persistence"),
    wall!("daypass-member-reach"),
    wall!("daypass-members"),
    wall!("daypass-namespaces"),
    wall!("daypass-own-namespace"),
    wall!("daypass-role-pods"),
    wall!("daypass-role-rbac"),
    wall!("daypass-role-secrets"),
    wall!("daypass-role-serviceaccounts"),
    wall!("daypass-role-tokens"),
];

/// Daypass's own service account, which the walls let do what they deny to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAccount {
    /// Its namespace: the release's.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Why a wall does not stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no policy of its name.
    NoPolicy,
    /// The policy is not the one that this version ships: it may deny less.
    OtherPolicy,
    /// The policy is not bound.
    NoBinding,
    /// The binding is not the one that this version ships: it may only warn, or hold in some places only.
    OtherBinding,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPolicy => "there is no such policy",
            Self::OtherPolicy => "the policy differs from this version's",
            Self::NoBinding => "the policy has no binding",
            Self::OtherBinding => "the binding differs from this version's",
        })
    }
}

impl Wall {
    /// What is wrong with a policy and its binding, given the `spec` of each; `None`: they are what this version
    /// ships.
    ///
    /// They must be equal, with all that an API server adds. A field that is unknown here may be what weakens them.
    pub fn fault(&self, own: &OwnAccount, policy: Option<&Value>, binding: Option<&Value>) -> Option<Fault> {
        let Some(policy) = policy else { return Some(Fault::NoPolicy) };
        if self.shipped(own, policy).is_none_or(|shipped| shipped != with_defaults(policy.clone())) {
            return Some(Fault::OtherPolicy);
        }
        let Some(binding) = binding else { return Some(Fault::NoBinding) };
        let bound = json!({"policyName": self.name, "validationActions": ["Deny"]});
        (*binding != bound).then_some(Fault::OtherBinding)
    }

    /// The spec as the chart renders it for this account. The API server's audiences are an operator's to choose, so
    /// they are taken from the policy that it is compared with, as long as they are a list of strings.
    fn shipped(&self, own: &OwnAccount, policy: &Value) -> Option<Value> {
        let username = format!("system:serviceaccount:{}:{}", own.namespace, own.name);
        let mut text = self.template.replace("${username}", &username).replace("${namespace}", &own.namespace);
        if let Some(audiences) = audiences(policy) {
            text = text.replace("${audiences}", audiences);
        }
        serde_yaml::from_str(&text).ok().map(with_defaults)
    }
}

fn audiences(policy: &Value) -> Option<&str> {
    let variables = policy["variables"].as_array()?;
    let text = variables.iter().find(|variable| variable["name"] == "apiAudiences")?["expression"].as_str()?;
    serde_json::from_str::<Vec<String>>(text).is_ok().then_some(text)
}

/// A policy's spec with what the API server adds.
fn with_defaults(mut spec: Value) -> Value {
    let add = |object: &mut Map<String, Value>, key: &str, value: Value| {
        object.entry(key).or_insert(value);
    };
    if let Some(constraints) = spec["matchConstraints"].as_object_mut() {
        add(constraints, "matchPolicy", json!("Equivalent"));
        add(constraints, "namespaceSelector", json!({}));
        add(constraints, "objectSelector", json!({}));
        for rule in constraints.get_mut("resourceRules").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(rule) = rule.as_object_mut() {
                add(rule, "scope", json!("*"));
            }
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> OwnAccount {
        OwnAccount { namespace: "ops".into(), name: "daypass".into() }
    }

    fn wall(name: &str) -> Wall {
        WALLS.into_iter().find(|wall| wall.name == name).unwrap()
    }

    /// As the chart renders it.
    fn rendered(wall: Wall) -> Value {
        let text = wall.template.replace("${username}", "system:serviceaccount:ops:daypass");
        serde_yaml::from_str(&text.replace("${namespace}", "ops").replace("${audiences}", r#"["a","b"]"#)).unwrap()
    }

    fn bound(wall: Wall) -> Value {
        json!({"policyName": wall.name, "validationActions": ["Deny"]})
    }

    #[test]
    fn every_wall_is_recognized_as_rendered_and_as_the_api_server_keeps_it() {
        for wall in WALLS {
            let policy = rendered(wall);
            assert!(!policy.to_string().contains("${"), "{}", wall.name);
            assert_eq!(wall.fault(&own(), Some(&policy), Some(&bound(wall))), None, "{}", wall.name);
            let kept = with_defaults(policy);
            assert_eq!(wall.fault(&own(), Some(&kept), Some(&bound(wall))), None, "{}", wall.name);
        }
    }

    #[test]
    fn any_change_to_a_policy_is_a_fault() {
        for wall in WALLS {
            let fault = |change: &dyn Fn(&mut Value)| {
                let mut policy = with_defaults(rendered(wall));
                change(&mut policy);
                wall.fault(&own(), Some(&policy), Some(&bound(wall)))
            };
            let changes: [&dyn Fn(&mut Value); 8] = [
                &|policy| policy["failurePolicy"] = json!("Ignore"),
                &|policy| policy["matchConditions"] = json!([{"name": "never", "expression": "false"}]),
                &|policy| policy["matchConstraints"]["namespaceSelector"] = json!({"matchLabels": {"a": "b"}}),
                &|policy| policy["matchConstraints"]["excludeResourceRules"] = json!([{"resources": ["*"]}]),
                &|policy| policy["matchConstraints"]["resourceRules"][0]["operations"] = json!(["CONNECT"]),
                &|policy| policy["validations"][0]["expression"] = json!("true"),
                &|policy| policy["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"}),
                &|policy| policy["somethingNew"] = json!(true),
            ];
            for (i, change) in changes.iter().enumerate() {
                assert_eq!(fault(change), Some(Fault::OtherPolicy), "{} {i}", wall.name);
            }
        }
    }

    #[test]
    fn a_binding_must_deny_everywhere() {
        let wall = wall("daypass-role-pods");
        let policy = rendered(wall);
        for (binding, fault) in [
            (None, Fault::NoBinding),
            (Some(json!({"policyName": wall.name, "validationActions": ["Audit"]})), Fault::OtherBinding),
            (
                Some(json!({"policyName": wall.name, "validationActions": ["Deny"], "matchResources": {}})),
                Fault::OtherBinding,
            ),
            (Some(json!({"policyName": "daypass-members", "validationActions": ["Deny"]})), Fault::OtherBinding),
        ] {
            assert_eq!(wall.fault(&own(), Some(&policy), binding.as_ref()), Some(fault), "{binding:?}");
        }
        assert_eq!(wall.fault(&own(), None, Some(&bound(wall))), Some(Fault::NoPolicy));
    }

    #[test]
    fn a_wall_around_another_daypass_is_not_this_ones() {
        let other = OwnAccount { namespace: "other".into(), ..own() };
        for name in ["daypass-accesstokens", "daypass-member-reach", "daypass-role-tokens"] {
            let wall = wall(name);
            let fault = wall.fault(&other, Some(&rendered(wall)), Some(&bound(wall)));
            assert_eq!(fault, Some(Fault::OtherPolicy), "{name}");
        }
    }

    #[test]
    fn audiences_are_a_list_of_strings_and_nothing_else() {
        let wall = wall("daypass-role-tokens");
        for (expression, fault) in [
            (r#"["https://a.example.com"]"#, None),
            ("[]", None),
            ("object.spec.audiences", Some(Fault::OtherPolicy)),
            (r#"["a"] + object.spec.audiences"#, Some(Fault::OtherPolicy)),
        ] {
            let mut policy = rendered(wall);
            policy["variables"][0]["expression"] = json!(expression);
            assert_eq!(wall.fault(&own(), Some(&policy), Some(&bound(wall))), fault, "{expression}");
        }
    }
}
