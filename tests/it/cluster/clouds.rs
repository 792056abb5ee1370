//! API servers as clouds and cautious administrators set them up. Each test restarts the API server with other flags
//! and walks through what users do.

use std::fs;
use std::thread;

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Cluster, Daypass, IdentityProvider, Kubeconfig, NewMember, Pool, PoolGuard, eventually, now};

/// A cluster with the admission policies, whose API server runs with these flags.
fn cluster(flags: &[&str]) -> PoolGuard<Cluster> {
    static POOL: Pool<Cluster> = Pool::new(2);
    let cluster = POOL.take(Cluster::own);
    // A restarted API server does not know any bindings for a moment.
    cluster.expect_refusals();
    cluster.restart_apiserver(flags);
    cluster
}

/// A file with this configuration of the API server.
fn file(cluster: &Cluster, config: &Value) -> String {
    let path = cluster.fresh_folder("apiserver").join("config.yaml");
    fs::write(&path, config.to_string()).unwrap();
    path.display().to_string()
}

/// Creates members with a Kubernetes token and an access token, uses a kubeconfig, and ends both: one by request, one
/// by its time.
#[track_caller]
pub fn assert_works(cluster: &Cluster, daypass: &Daypass) {
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    let output = cluster.kubectl_with(&kubeconfig.file, &["get", "pods", "--all-namespaces"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!cluster.kubectl_with(&kubeconfig.file, &["get", "secrets"]).status.success());

    let caller = cluster.generator(daypass);
    let by_token = AccessToken::new(&caller, &SCOPES);
    by_token.http.get("/tokens/self").expect(200);

    cluster.apply_member(&role, "brief", &json!({"duration": "3s"}));
    cluster.wait_gone(&role, "brief");
    daypass.owner.delete(&member.path("")).expect(204);
    eventually("the kubeconfig is refused", || (!kubeconfig.is_accepted(cluster)).then_some(()));
}

#[test]
fn issuers_and_audiences_of_managed_clusters() {
    let cluster = Cluster::own();
    cluster.expect_refusals();
    let eks = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF";
    let gke = "https://container.googleapis.com/v1/projects/p/locations/europe-west1/clusters/c";
    let aks = "https://westeurope.oic.prod-aks.azure.com/tenant/cluster/";
    let ours = "https://kubernetes.default.svc";
    // The first issuer signs. Without audiences, they are the issuers.
    for (issuers, audiences) in [(vec![eks, ours], vec![ours]), (vec![gke], vec![]), (vec![aks, ours], vec![aks, "c"])]
    {
        let mut flags: Vec<String> =
            issuers.iter().map(|issuer| format!("--service-account-issuer={issuer}")).collect();
        if !audiences.is_empty() {
            flags.push(format!("--api-audiences={}", audiences.join(",")));
        }
        cluster.restart_apiserver(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        cluster.chart.write_kubeconfig(&cluster.plane, &cluster.kubeconfig).unwrap();
        let accepted = if audiences.is_empty() { &issuers } else { &audiences };
        let mut values = cluster.values();
        values["walls"] = json!({"enabled": true, "apiAudiences": ["https://somewhere.else"]});
        cluster.upgrade(&values);
        let mut daypass = Daypass::with_args(&cluster, &[]);
        let role = cluster.reader();
        let member = NewMember::new(&daypass.owner, &role, 1);
        eventually("the policies are in force", || {
            let answer = member.engineer.get(&member.path("/kubeconfig"));
            if answer.status == 200 {
                // A member can have only ten.
                let jti = Kubeconfig::new(&cluster, &answer).jti().to_owned();
                member.engineer.delete(&member.path(&format!("/kubeconfigs/{jti}"))).expect(204);
            }
            (answer.status != 200).then_some(())
        });
        values["walls"]["apiAudiences"] = json!(accepted);
        cluster.upgrade(&values);
        eventually("the policies admit this audience", || {
            (member.engineer.get(&member.path("/kubeconfig")).status == 200).then_some(())
        });
        let claims = member.kubeconfig(&cluster).claims;
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(issuers[0]), &json!(accepted)));
        assert_works(&cluster, &daypass);
        daypass.stop();
    }
}

#[test]
fn kubeconfig_lasts_as_long_as_the_api_server_permits() {
    for hours in [24, 1] {
        let cluster = cluster(&[&format!("--service-account-max-token-expiration={hours}h")]);
        let mut daypass = Daypass::with_args(&cluster, &[]);
        let role = cluster.reader();
        let member = NewMember::new(&daypass.owner, &role, 48);
        let before = now();
        let kubeconfig = member.kubeconfig(&cluster);
        let longest = TimeDelta::hours(hours);
        let exp = chrono::DateTime::from_timestamp(kubeconfig.exp(), 0).unwrap();
        assert!((before + longest - exp).abs() < TimeDelta::minutes(10), "{exp} with {hours} h");
        let said = format!("# The token in this file expires at {}", exp.format("%Y-%m-%dT%H:%M:%SZ"));
        assert!(kubeconfig.text.contains(&said), "{}", kubeconfig.text);
        assert_eq!(member.listed(&member.engineer), [kubeconfig.jti()]);
        // The member goes on, and with it the right to another kubeconfig.
        assert_eq!(member.body["durationSeconds"], 48 * 3600);
        assert!(member.kubeconfig(&cluster).is_accepted(&cluster));
        assert_works(&cluster, &daypass);
        daypass.stop();
    }
}

#[test]
fn structured_authentication_admits_people_of_an_identity_provider() {
    let cluster = cluster(&[]);
    let provider = IdentityProvider::start(&cluster);
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {
                "url": provider.issuer, "certificateAuthority": provider.certificate,
                "audiences": ["kubectl", "other"], "audienceMatchPolicy": "MatchAny",
            },
            "claimMappings": {
                "username": {"expression": "'oidc:' + claims.email"},
                "groups": {"expression": "claims.roles.split(',').map(role, 'oidc:' + role)"},
            },
            "claimValidationRules": [{"expression": "claims.email_verified == true", "message": "not verified"}],
        }],
    });
    cluster.restart_apiserver(&[&format!("--authentication-config={}", file(&cluster, &config))]);
    let mut daypass = Daypass::with_args(&cluster, &["--accept-api-server-audience", "--user-tokens"]);
    let role = cluster.reader();
    let binding = ["create", "rolebinding", "owners", "--clusterrole=daypass-engines-manage", "--group=oidc:owners"];
    cluster.kubectl(&[&binding[..], &["-n", &role.namespace]].concat());
    let claims =
        |verified| json!({"sub": "1", "email": "a@example.com", "email_verified": verified, "roles": "owners,x"});
    let person = |verified| daypass.owner.with_token(&provider.id_token(&cluster, "kubectl", &claims(verified)));
    let alice = person(true);
    eventually("she has her rights", || {
        (alice.get(&format!("/members/{}.nobody", role.id)).status == 404).then_some(())
    });
    let member = NewMember::new(&alice, &role, 1);
    assert_eq!(member.body["createdBy"], "oidc:a@example.com");
    alice.delete(&member.path("")).expect(204);
    person(false).get("/members").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let other = daypass.owner.with_token(&provider.id_token(&cluster, "somebody-else", &claims(true)));
    other.get("/members").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert_works(&cluster, &daypass);
    daypass.stop();
}

#[test]
fn encryption_at_rest() {
    // Its own: an API server without the key cannot read what this one writes.
    let cluster = Cluster::own();
    cluster.expect_refusals();
    let key = json!([{"name": "one", "secret": "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/Pz8/Pz8="}]);
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{
            "resources": ["secrets", "members.daypass.dev", "accesstokens.daypass.dev"],
            "providers": [{"secretbox": {"keys": key}}, {"identity": {}}],
        }],
    });
    cluster.restart_apiserver(&[&format!("--encryption-provider-config={}", file(&cluster, &config))]);
    let mut daypass = Daypass::with_args(&cluster, &[]);
    assert_works(&cluster, &daypass);
    let metrics = cluster.kubectl(&["get", "--raw", "/metrics"]);
    let encrypted: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_storage_transformation_operations_total{"))
        .filter(|line| line.contains("to_storage") && line.contains("secretbox"))
        .collect();
    assert!(!encrypted.is_empty(), "nothing was encrypted");
    // Older versions do not say what.
    for resource in ["secrets", "members", "accesstokens"].into_iter().filter(|_| encrypted[0].contains("resource=")) {
        let of_it = format!("resource=\"{resource}");
        assert!(encrypted.iter().any(|line| line.contains(&of_it)), "{resource} was not encrypted: {encrypted:#?}");
    }
    daypass.stop();
}

#[test]
fn small_api_server_ends_members_on_time() {
    // As small managed control planes: all clients share a handful of seats.
    let cluster = cluster(&["--max-requests-inflight=20", "--max-mutating-requests-inflight=10"]);
    let mut daypass = Daypass::with_args(&cluster, &[]);
    let role = cluster.reader();
    let body = json!({"duration": "1", "roleId": role.id});
    thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    eventually("a creation succeeds", || {
                        let answer = daypass.owner.post("/members", &body);
                        if answer.status == 201 {
                            return Some(());
                        }
                        // Nothing else than a request to try again.
                        assert_eq!(answer.status, 503, "{}", answer.text);
                        assert!(!answer.header("retry-after").is_empty());
                        None
                    });
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(cluster.names(&role.namespace, "member").len(), 16, "a failed creation leaves nothing");
    assert_works(&cluster, &daypass);
    daypass.stop();
}

#[test]
fn anonymous_access_is_not_needed() {
    let cluster = cluster(&["--anonymous-auth=false"]);
    let mut daypass = Daypass::with_args(&cluster, &[]);
    assert_works(&cluster, &daypass);
    daypass.stop();
}

#[test]
fn aggregated_api_that_is_down_disturbs_nobody() {
    let cluster = cluster(&[]);
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.example.com"},
        "spec": {
            "group": "metrics.example.com", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"namespace": "kube-system", "name": "nowhere"},
        },
    });
    cluster.create(&service);
    eventually("the API is known to be down", || {
        let found = cluster.object("default", "apiservice", "v1beta1.metrics.example.com")?;
        let conditions = found["status"]["conditions"].as_array()?;
        conditions.iter().any(|it| it["type"] == "Available" && it["status"] == "False").then_some(())
    });
    let mut daypass = Daypass::with_args(&cluster, &[]);
    assert_works(&cluster, &daypass);
    cluster.upgrade(&cluster.values());
    daypass.stop();
    cluster.kubectl(&["delete", "apiservice", "v1beta1.metrics.example.com"]);
}
