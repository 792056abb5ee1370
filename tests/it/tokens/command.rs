//! `daypass token`: access tokens for the REST API by a kubeconfig.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::tokens::GENERATE;
use crate::support::{Cluster, Daypass, Http, Socks5};

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

/// `daypass token list` as a caller, with several values of `$KUBECONFIG` and other variables.
struct Lister<'a> {
    shell: Shell<'a>,
    name: String,
}

impl Lister<'static> {
    fn new() -> Self {
        let shell = Shell::admin();
        let name = name(&shell.cluster.generator(shell.daypass));
        Self { shell, name }
    }

    /// Its standard error if it fails.
    fn list(&self, kubeconfig: &str, variables: &[(&str, &str)]) -> Result<(), String> {
        let args = ["list", "--service-account", &self.name];
        let mut command = self.shell.cluster.new_token_command(self.shell.daypass, Path::new(kubeconfig), &args);
        command.env("HOME", "/nonexistent").current_dir(self.shell.kubeconfig.parent().unwrap());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(texts(&output).1) }
    }

    /// The administrator's kubeconfig with a change, as a file.
    fn changed(&self, from: &str, to: &str) -> String {
        let text = fs::read_to_string(&self.shell.kubeconfig).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        self.shell.cluster.save(&text.replace(from, to)).display().to_string()
    }

    /// The administrator's kubeconfig whose cluster has another line.
    fn with_cluster_line(&self, line: &str) -> String {
        self.changed("    server: ", &format!("    {line}\n    server: "))
    }
}

#[test]
fn missing_kubeconfigs_are_skipped_and_the_first_to_set_something_wins() {
    let lister = Lister::new();
    let good = lister.shell.kubeconfig.display().to_string();
    let unset = lister.shell.cluster.save("apiVersion: v1\nkind: Config\ncurrent-context: \"\"\n");
    let dead = lister.changed(&lister.shell.cluster.plane.server_url(), "https://127.0.0.1:1");
    let relative = lister.shell.kubeconfig.file_name().unwrap().to_str().unwrap();
    for list in [
        format!("/missing:{good}"),
        format!("{good}:/missing"),
        format!(":/missing::{good}:"),
        format!("{}:{good}", unset.display()),
        format!("{good}:{dead}"),
        relative.to_owned(),
    ] {
        assert_eq!(lister.list(&list, &[]), Ok(()), "{list}");
    }
    assert!(lister.list(&format!("{dead}:{good}"), &[]).is_err(), "the first wins");
    for none in ["/missing", "/missing:/missing2", ":", ""] {
        let error = lister.list(none, &[]).unwrap_err();
        assert!(error.contains("neither a kubeconfig nor a pod's service account"), "{none}: {error}");
    }
    // Only a file that does not exist is skipped.
    let folder = lister.shell.cluster.fresh_folder("kubeconfig").display().to_string();
    let invalid = lister.shell.cluster.save("clusters: 7").display().to_string();
    for bad in [&folder, &invalid] {
        let error = lister.list(&format!("{bad}:{good}"), &[]).unwrap_err();
        assert!(error.contains("kubeconfig") && !error.contains("neither"), "{bad}: {error}");
    }
}

#[test]
fn kubeconfig_may_name_files_beside_it_and_a_plugin() {
    let lister = Lister::new();
    let cluster = lister.shell.cluster;
    let folder = cluster.fresh_folder("kubeconfig");
    let token = cluster.token("default", "owner", "");
    let as_owner = |user: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{}', certificate-authority: ca.pem}}}}]\n\
             users: [{{name: c, user: {user}}}]\n",
            cluster.plane.server_url()
        );
        fs::write(folder.join("config"), text).unwrap();
        lister.list(&folder.join("config").display().to_string(), &[])
    };
    fs::write(folder.join("ca.pem"), cluster.plane.ca_pem()).unwrap();
    fs::write(folder.join("token"), &token).unwrap();
    let status = "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\"";
    let plugin = format!("#!/bin/sh\necho '{status},\"status\":{{\"token\":\"{token}\"}}}}'\n");
    fs::write(folder.join("plugin"), plugin).unwrap();
    fs::set_permissions(folder.join("plugin"), fs::Permissions::from_mode(0o700)).unwrap();
    let exec = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, interactiveMode: Never}}";
    for user in ["{tokenFile: token}", exec] {
        // The owner may not request tokens: Kubernetes knew who asked.
        let error = as_owner(user).unwrap_err();
        assert!(error.contains("system:serviceaccount:default:owner"), "{user}: {error}");
    }
}

#[test]
fn kubeconfig_proxy_is_used() {
    let (lister, proxy) = (Lister::new(), Socks5::start());
    let through = lister.with_cluster_line(&format!("proxy-url: {}", proxy.url));
    lister.list(&through, &[]).unwrap();
    assert_eq!(proxy.asked().first().map(String::as_str), Some("127.0.0.1"));
    // `NO_PROXY` is for the proxies of the environment.
    let before = proxy.asked().len();
    lister.list(&through, &[("NO_PROXY", "127.0.0.1,localhost")]).unwrap();
    assert!(proxy.asked().len() > before);
    // The proxy resolves the server's name.
    let server = lister.shell.cluster.plane.server_url();
    let named = server.replace("127.0.0.1", "apiserver.invalid");
    let text = fs::read_to_string(&through).unwrap().replace(&server, &named);
    let text = text.replace("    server: ", "    tls-server-name: 127.0.0.1\n    server: ");
    lister.list(&lister.shell.cluster.save(&text).display().to_string(), &[]).unwrap();
    assert!(proxy.asked().contains(&"apiserver.invalid".to_owned()), "{:?}", proxy.asked());
    // It never goes past a proxy that is down or unknown.
    for url in ["socks5://127.0.0.1:1", "http://127.0.0.1:1", "ftp://127.0.0.1"] {
        assert!(lister.list(&lister.with_cluster_line(&format!("proxy-url: {url}")), &[]).is_err(), "{url}");
    }
}

#[test]
fn proxy_of_the_environment_is_not_for_this_machine() {
    let lister = Lister::new();
    let good = lister.shell.kubeconfig.display().to_string();
    assert_eq!(lister.list(&good, &[("HTTPS_PROXY", "http://127.0.0.1:1")]), Ok(()));
    // With another name of this machine, only through the proxy.
    let proxy = Socks5::start();
    let server = lister.shell.cluster.plane.server_url();
    let text = fs::read_to_string(&good).unwrap().replace(&server, &server.replace("127.0.0.1", "apiserver.invalid"));
    let text = text.replace("    server: ", "    tls-server-name: 127.0.0.1\n    server: ");
    let named = lister.shell.cluster.save(&text).display().to_string();
    assert_eq!(lister.list(&named, &[("HTTPS_PROXY", &proxy.url)]), Ok(()));
    assert!(lister.list(&named, &[("HTTPS_PROXY", &proxy.url), ("NO_PROXY", ".invalid")]).is_err());
}
