//! `daypass token`: with an administrator's kubeconfig, from nothing to a token for the REST API.

use std::path::PathBuf;
use std::process::Output;

use crate::support::tokens::GENERATE;
use crate::support::{Daypass, Http, Lab};

/// `NAMESPACE/NAME` of a caller.
fn name(caller: &Http) -> String {
    let username = caller.username();
    format!("default/{}", username.rsplit_once(':').unwrap().1)
}

fn texts(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

struct Shell<'a> {
    lab: &'a Lab,
    daypass: &'a Daypass,
    kubeconfig: PathBuf,
}

impl<'a> Shell<'a> {
    /// With the administrator's kubeconfig.
    fn admin() -> Shell<'static> {
        let (lab, daypass) = Lab::shared();
        Shell { lab, daypass, kubeconfig: lab.plane.kubeconfig() }
    }

    /// With a service account's kubeconfig.
    fn of(lab: &'a Lab, daypass: &'a Daypass, caller: &Http) -> Self {
        let name = name(caller);
        let kubeconfig = lab.fresh_folder("kubeconfig").join("config");
        let token = lab.token("default", name.split_once('/').unwrap().1, "");
        lab.plane.write_token_kubeconfig(&kubeconfig, &token).unwrap();
        Self { lab, daypass, kubeconfig }
    }

    fn run(&self, args: &[&str]) -> Output {
        self.lab.token_command(self.daypass, &self.kubeconfig, args)
    }

    /// What it printed, and what it said besides.
    #[track_caller]
    fn done(&self, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        assert!(output.status.success(), "{:?}", texts(&output));
        texts(&output)
    }

    /// Why it did nothing.
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
fn the_administrators_kubeconfig_leads_to_a_token() {
    let shell = Shell::admin();
    let owner = shell.lab.generator(shell.daypass);
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
fn a_manager_makes_lists_and_revokes_those_of_others() {
    let shell = Shell::admin();
    let (manager, owner) = (shell.lab.manager(shell.daypass), shell.lab.caller(shell.daypass, &[], &[], None));
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
fn what_right_is_missing_is_said() {
    let shell = Shell::admin();
    let (lab, daypass) = (shell.lab, shell.daypass);
    // The owner may not generate.
    let owner = lab.caller(daypass, &[], &[], None);
    let owner_name = name(&owner);
    let error = shell.refused(&create(&["--owner", &owner_name]));
    assert!(error.contains("generate personalaccesstokens.daypass.dev"), "{error}");
    assert!(error.contains("daypass-tokens-generate") && error.contains(&owner_name), "{error}");
    // Who calls may not have a token made of it.
    let weak = Shell::of(lab, daypass, &owner);
    for args in [create(&["--owner", "default/owner"]), create(&["--service-account", "default/owner"]), create(&[])] {
        let error = weak.refused(&args);
        assert!(error.contains("serviceaccounts/token") && error.contains("default"), "{error}");
    }
    // There is no such owner, and none is said.
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
fn a_service_accounts_kubeconfig_is_enough_where_it_may_make_its_own_token() {
    let (lab, daypass) = Lab::shared();
    let caller = lab.with_privilege(lab.caller(daypass, &[], &[], None), GENERATE);
    let name = name(&caller);
    let account = name.split_once('/').unwrap().1;
    let only = format!("--resource-name={account}");
    let (role, user) = (format!("--role={account}"), format!("--user={}", caller.username()));
    lab.kubectl(&[
        "create",
        "role",
        account,
        "-n",
        "default",
        "--verb=create",
        "--resource=serviceaccounts/token",
        &only,
    ]);
    lab.kubectl(&["create", "rolebinding", account, "-n", "default", &role, &user]);
    let shell = Shell::of(lab, daypass, &caller);
    let secret = crate::support::eventually("the right is in force", || {
        let output = shell.run(&CREATE);
        output.status.success().then(|| texts(&output).0)
    });
    let pat = caller.with_token(secret.trim());
    assert_eq!(pat.get("/tokens/self").expect(200).json()["owner"]["username"], caller.username());
    let listed = shell.done(&["list"]).0;
    assert_eq!(listed.lines().count(), 2, "{listed}");
}
