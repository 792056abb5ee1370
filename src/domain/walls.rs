//! The walls: the admission policies that this version ships, and whether the policies of a cluster match them.

use std::fmt;

use serde_json::{Map, Value, json};

/// One admission policy. Its binding has the same name.
#[derive(Debug, Clone, Copy)]
pub struct Wall {
    /// The policy's name.
    pub name: &'static str,
    /// The policy's `spec` in YAML, with placeholders that the chart fills in.
    template: &'static str,
}

/// Includes the file that the chart renders.
macro_rules! wall {
    ($name:literal) => {
        Wall {
            name: $name,
            template: include_str!(concat!("../../deploy/charts/daypass/files/walls/", $name, ".yaml")),
        }
    };
}

/// All walls. The chart lets Daypass read exactly these (`daypass.walls` in its `_helpers.tpl`).
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

/// True for an update of an object that is being deleted if it only removes finalizers. The walls let it pass.
const REMOVES_FINALIZERS: &str = include_str!("../../deploy/charts/daypass/files/walls/removes-finalizers.cel");

/// How long a member's token may live, in seconds: with direct kubeconfigs, and with the gateway alone. The operator
/// chooses.
const TOKEN_LIVES: [&str; 2] = ["172800", "3600"];

/// Daypass's own service account, which the walls exempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAccount {
    /// Its namespace, which is that of the Helm release.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Why a wall is not in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The policy is missing.
    NoPolicy,
    /// The policy differs from the one that this version ships, so it may deny less.
    OtherPolicy,
    /// The binding is missing.
    NoBinding,
    /// The binding differs from the one that this version ships, so it may only warn, or apply in some places only.
    OtherBinding,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPolicy => "the policy is missing",
            Self::OtherPolicy => "the policy differs from the one that this version ships",
            Self::NoBinding => "the binding is missing",
            Self::OtherBinding => "the binding differs from the one that this version ships",
        })
    }
}

impl Wall {
    /// The fault of a policy and its binding, given the `spec` of each; `None` if they match what this version ships.
    ///
    /// They must be equal, including the defaults that an API server adds: a field that Daypass does not know may
    /// weaken them.
    pub fn fault(&self, own: &OwnAccount, policy: Option<&Value>, binding: Option<&Value>) -> Option<Fault> {
        let Some(policy) = policy else { return Some(Fault::NoPolicy) };
        let present = with_defaults(policy.clone());
        let is_shipped = |life| self.shipped(own, policy, life).is_some_and(|shipped| shipped == present);
        if !TOKEN_LIVES.into_iter().any(is_shipped) {
            return Some(Fault::OtherPolicy);
        }
        let Some(binding) = binding else { return Some(Fault::NoBinding) };
        let bound = json!({"policyName": self.name, "validationActions": ["Deny"]});
        (*binding != bound).then_some(Fault::OtherBinding)
    }

    /// The spec as the chart renders it for this account. The operator chooses the API server's audiences, so they
    /// come from the policy to compare with, if they are a list of strings.
    fn shipped(&self, own: &OwnAccount, policy: &Value, token_life: &str) -> Option<Value> {
        serde_yaml::from_str(&self.filled(own, audiences(policy), token_life)).ok().map(with_defaults)
    }

    /// The template with its placeholders filled in.
    fn filled(&self, own: &OwnAccount, audiences: Option<&str>, token_life: &str) -> String {
        let username = format!("system:serviceaccount:{}:{}", own.namespace, own.name);
        let text = self.template.replace("${username}", &username).replace("${namespace}", &own.namespace);
        let text = text.replace("${removesFinalizers}", &REMOVES_FINALIZERS.trim().replace('\n', " "));
        let text = text.replace("${tokenLife}", token_life);
        match audiences {
            Some(audiences) => text.replace("${audiences}", audiences),
            None => text,
        }
    }
}

fn audiences(policy: &Value) -> Option<&str> {
    let variables = policy["variables"].as_array()?;
    let text = variables.iter().find(|variable| variable["name"] == "apiAudiences")?["expression"].as_str()?;
    serde_json::from_str::<Vec<String>>(text).is_ok().then_some(text)
}

/// A policy's spec with the defaults that the API server adds.
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

    /// The policy as the chart renders it.
    fn rendered(wall: Wall) -> Value {
        with_token_life(wall, "172800")
    }

    fn with_token_life(wall: Wall, seconds: &str) -> Value {
        serde_yaml::from_str(&wall.filled(&own(), Some(r#"["a","b"]"#), seconds)).unwrap()
    }

    fn bound(wall: Wall) -> Value {
        json!({"policyName": wall.name, "validationActions": ["Deny"]})
    }

    #[test]
    fn shipped_wall_has_no_fault_with_or_without_api_server_defaults() {
        for wall in WALLS {
            let policy = rendered(wall);
            assert!(!policy.to_string().contains("${"), "{}", wall.name);
            assert_eq!(wall.fault(&own(), Some(&policy), Some(&bound(wall))), None, "{}", wall.name);
            let stored = with_defaults(policy);
            assert_eq!(wall.fault(&own(), Some(&stored), Some(&bound(wall))), None, "{}", wall.name);
        }
    }

    #[test]
    fn changed_policy_is_a_fault() {
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
    fn binding_must_deny_everywhere() {
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

    /// Otherwise a foreign finalizer keeps an object, and its namespace, for good.
    #[test]
    fn walls_on_updates_let_finalizers_be_removed() {
        for wall in WALLS.into_iter().filter(|wall| rendered(*wall)["matchConstraints"].to_string().contains("UPDATE"))
        {
            let spec = rendered(wall);
            let conditions: Vec<_> = spec["matchConditions"].as_array().into_iter().flatten().collect();
            let is_exempt = conditions.iter().any(|condition| condition["name"] == "removes-no-finalizers");
            let is_about_members_alone = conditions.iter().any(|condition| condition["name"] == "by-member");
            // Their rules pass an update that changes only finalizers.
            let is_narrow = ["daypass-members", "daypass-namespaces"].contains(&wall.name);
            assert!(is_exempt || is_about_members_alone || is_narrow, "{}", wall.name);
        }
    }

    #[test]
    fn wall_of_another_installation_is_a_fault() {
        let other = OwnAccount { namespace: "other".into(), ..own() };
        for name in ["daypass-accesstokens", "daypass-member-reach", "daypass-role-tokens"] {
            let wall = wall(name);
            let fault = wall.fault(&other, Some(&rendered(wall)), Some(&bound(wall)));
            assert_eq!(fault, Some(Fault::OtherPolicy), "{name}");
        }
    }

    #[test]
    fn token_life_must_be_one_of_the_two() {
        let wall = wall("daypass-role-tokens");
        for (seconds, fault) in [("3600", None), ("172800", None), ("172801", Some(Fault::OtherPolicy))] {
            let policy = with_token_life(wall, seconds);
            assert_eq!(wall.fault(&own(), Some(&policy), Some(&bound(wall))), fault, "{seconds}");
        }
    }

    #[test]
    fn audiences_must_be_a_list_of_strings() {
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
