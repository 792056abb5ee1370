//! `daypass token`: access tokens for the REST API by a kubeconfig.

use std::path::PathBuf;
use std::process::Output;

use crate::support::tokens::GENERATE;
use crate::support::{Cluster, Daypass, Http};

/// `NAMESPACE/NAME` of a caller.
fn name(caller: &Http) -> String {
    let username = caller.username();
    format!("default/{}", username.rsplit_once(':').unwrap().1)
}

fn texts(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

struct Shell<'a> {
    cluster: &'a Cluster,
    daypass: &'a Daypass,
    kubeconfig: PathBuf,
}

impl<'a> Shell<'a> {
    /// With the administrator's kubeconfig.
    fn admin() -> Shell<'static> {
        let (cluster, daypass) = Cluster::shared();
        Shell { cluster, daypass, kubeconfig: cluster.plane.kubeconfig() }
    }

    /// With a service account's kubeconfig.
    fn of(cluster: &'a Cluster, daypass: &'a Daypass, caller: &Http) -> Self {
        let name = name(caller);
        let kubeconfig = cluster.fresh_folder("kubeconfig").join("config");
        let token = cluster.token("default", name.split_once('/').unwrap().1, "");
        cluster.plane.write_token_kubeconfig(&kubeconfig, &token).unwrap();
        Self { cluster, daypass, kubeconfig }
    }

    fn run(&self, args: &[&str]) -> Output {
        self.cluster.token_command(self.daypass, &self.kubeconfig, args)
    }

    /// Its output and errors.
    #[track_caller]
    fn done(&self, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        assert!(output.status.success(), "{:?}", texts(&output));
        texts(&output)
    }

    /// The error of a run that must fail.
    #[track_caller]
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, error) = texts(&output);
        assert!(!output.status.success() && out.is_empty(), "{out} {error}");
        assert!(!error.contains("eyJ"), "a Kubernetes token: {error}");
        error
    }
}

const CREATE: [&str; 6] = ["create", "first", "--scopes", "tokens:read,tokens:write", "--expires-in-days", "1"];

fn create<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&CREATE[..], more].concat()
}

#[test]
fn administrator_kubeconfig_gets_a_token() {
    let shell = Shell::admin();
    let owner = shell.cluster.generator(shell.daypass);
    let name = name(&owner);
    let (secret, remark) = shell.done(&create(&["--owner", &name]));
    let secret = secret.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("dpp_") && !secret.contains(char::is_whitespace), "{secret}");
    assert!(remark.contains(&owner.username()) && !remark.contains(secret), "{remark}");
    let shown = owner.with_token(secret).get("/tokens/self").expect(200).json();
    assert_eq!((&shown["name"], &shown["createdBy"]), (&"first".into(), &owner.username().into()));

    let as_owner = ["--service-account", &name];
    let list = |more: &[&str]| shell.done(&[&["list"], &as_owner[..], more].concat()).0;
    let id = shown["id"].as_str().unwrap();
    assert!(list(&[]).contains(id) && list(&[]).contains("ACTIVE") && !list(&[]).contains(secret));
    assert!(shell.refused(&[&["list", "--all"], &as_owner[..]].concat()).contains("Manage All Access Tokens"));
    assert!(shell.refused(&["list"]).contains("--service-account"), "the administrator is no service account");
    shell.done(&[&["revoke", id], &as_owner[..]].concat());
    owner.with_token(secret).assert_refused();
    assert!(!list(&[]).contains(id));
    assert!(shell.refused(&[&["revoke", id], &as_owner[..]].concat()).contains("404"));
    assert!(shell.refused(&[&["revoke", "../x?y"], &as_owner[..]].concat()).contains("404"));
}

#[test]
fn manager_creates_lists_and_revokes_tokens_of_others() {
    let shell = Shell::admin();
    let (manager, owner) = (shell.cluster.manager(shell.daypass), shell.cluster.caller(shell.daypass, &[], &[], None));
    let (manager_name, owner_name) = (name(&manager), name(&owner));
    let as_manager = ["--service-account", &manager_name];
    let (secret, _) = shell.done(&create(&[&["--owner", &owner_name], &as_manager[..]].concat()));
    let pat = owner.with_token(secret.trim());
    let shown = pat.get("/tokens/self").expect(200).json();
    assert_eq!(shown["owner"]["username"], owner.username());
    assert_eq!(shown["createdBy"], manager.username());
    let id = shown["id"].as_str().unwrap();
    let listed = shell.done(&[&["list", "--all"], &as_manager[..]].concat()).0;
    assert!(listed.lines().any(|line| line.contains(id) && line.contains(&owner.username())), "{listed}");
    shell.done(&[&["revoke", id], &as_manager[..]].concat());
    pat.assert_refused();
}

#[test]
fn missing_right_is_named() {
    let shell = Shell::admin();
    let (cluster, daypass) = (shell.cluster, shell.daypass);
    // The owner may not generate.
    let owner = cluster.caller(daypass, &[], &[], None);
    let owner_name = name(&owner);
    let error = shell.refused(&create(&["--owner", &owner_name]));
    assert!(error.contains("generate personalaccesstokens.daypass.dev"), "{error}");
    assert!(error.contains("daypass-tokens-generate") && error.contains(&owner_name), "{error}");
    // The caller may not request tokens of its own account.
    let weak = Shell::of(cluster, daypass, &owner);
    for args in [create(&["--owner", "default/owner"]), create(&["--service-account", "default/owner"]), create(&[])] {
        let error = weak.refused(&args);
        assert!(error.contains("serviceaccounts/token") && error.contains("default"), "{error}");
    }
    // The owner does not exist, or is missing.
    assert!(shell.refused(&create(&["--owner", "default/nobody"])).contains("nobody"));
    assert!(shell.refused(&create(&[])).contains("--service-account"));
    for args in [create(&["--owner", "nobody"]), ["create", "x", "--scopes", "all", "--expires-in-days", "1"].to_vec()]
    {
        shell.refused(&args);
    }
    assert!(shell.refused(&["create", "x", "--scopes", "tokens:read"]).contains("--expires-in-days"));
    let other_audience = create(&["--owner", &owner_name, "--token-audience", "elsewhere"]);
    assert!(shell.refused(&other_audience).contains("DP_ERR_CREDENTIAL_REFUSED"));
}

#[test]
fn service_account_kubeconfig_suffices_to_create_its_token() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.with_privilege(cluster.caller(daypass, &[], &[], None), GENERATE);
    let name = name(&caller);
    let account = name.split_once('/').unwrap().1;
    let only = format!("--resource-name={account}");
    let (role, user) = (format!("--role={account}"), format!("--user={}", caller.username()));
    cluster.kubectl(&[
        "create",
        "role",
        account,
        "-n",
        "default",
        "--verb=create",
        "--resource=serviceaccounts/token",
        &only,
    ]);
    cluster.kubectl(&["create", "rolebinding", account, "-n", "default", &role, &user]);
    let shell = Shell::of(cluster, daypass, &caller);
    let secret = crate::support::eventually("the right is in force", || {
        let output = shell.run(&CREATE);
        output.status.success().then(|| texts(&output).0)
    });
    let pat = caller.with_token(secret.trim());
    assert_eq!(pat.get("/tokens/self").expect(200).json()["owner"]["username"], caller.username());
    let listed = shell.done(&["list"]).0;
    assert_eq!(listed.lines().count(), 2, "{listed}");
}
