//! The owner creates members through Daypass's Service; the engineer uses them.

use crate::session::Session;

/// Functions that a person would define in a terminal.
const OWNER: &str = concat!(
    "MEMBERS=https://daypass.node.test:8443/processing/data-planes/eu-prod-1/members\n",
    r#"owner() { printf 'Authorization: Bearer %s' "$DAYPASS_TOKEN" | "#,
    r#"curl -sS --fail-with-body --cacert daypass-ca.crt -H @- "$@"; }"#
);

/// A member as the terminal knows it.
pub struct Member {
    pub id: String,
    /// The file of its kubeconfig, without its ending.
    pub name: String,
}

/// The owner's token and the certificate, then a member, by the Service's public name.
pub fn create_through_the_service(terminal: &mut Session) -> Member {
    terminal.say("The owner's token, for Daypass alone, and Daypass's certificate:");
    terminal.run(
        "DAYPASS_TOKEN=$(kubectl create token data-plane-owner --namespace default --audience daypass --duration 1h)",
    );
    terminal.run(
        "kubectl get secret daypass-tls --namespace daypass -o 'jsonpath={.data.tls\\.crt}' | base64 -d > \
        daypass-ca.crt",
    );
    terminal.run(OWNER);
    terminal.say(
        "The owner creates a member, through the Service. Right after the first install, Kubernetes may \
        not have counted the role's quota yet; `--retry` waits:",
    );
    let create = concat!(
        "owner --retry 30 --retry-delay 2 -H 'Idempotency-Key: case-0815' ",
        "-H 'Content-Type: application/json' \\\n",
        r#"  -d '{"duration":"1","roleId":"projects-view","description":"Case 0815","#,
        r#""username":"Talend support team"}' "$MEMBERS""#
    );
    created(terminal, create, "case")
}

/// Another member, without showing how.
pub fn creates(terminal: &mut Session, role: &str, name: &str) -> Member {
    let create = format!(
        r#"owner --retry 30 --retry-delay 2 -H 'Content-Type: application/json' \
  -d '{{"duration":"1","roleId":"{role}"}}' "$MEMBERS""#
    );
    let (answer, success) = terminal.attempt(&create);
    assert!(success, "{answer}");
    let member = taken(terminal, &answer, name);
    terminal.quiet(&download(name));
    member
}

fn created(terminal: &mut Session, command: &str, name: &str) -> Member {
    let (answer, success) = terminal.attempt(command);
    assert!(success, "{answer}");
    let member = taken(terminal, &answer, name);
    // What was refused until the quota was counted, and curl's own words about that, come first.
    let answer = &answer[answer.rfind("{\"id\"").unwrap()..];
    terminal.show(command, &shortened(answer));
    member
}

/// Stores the id and the credential from an answer in variables named after the member.
fn taken(terminal: &mut Session, answer: &str, name: &str) -> Member {
    let field = |name: &str| -> String {
        let rest = answer.split_once(&format!("\"{name}\":\"")).unwrap_or_else(|| panic!("no {name} in the answer")).1;
        rest.split_once('"').unwrap().0.to_owned()
    };
    let (id, password) = (field("id"), field("password"));
    let random = password.rsplit_once('_').unwrap().1;
    terminal.hide(random, &format!("{}…", &random[..4]));
    terminal.quiet(&format!("{name}_ID={id} {name}_PASSWORD={password}"));
    Member { id, name: name.to_owned() }
}

/// One field a line, without the long texts: the certificate and the text to forward.
fn shortened(answer: &str) -> String {
    let mut shown = answer.to_owned();
    for field in ["caCertificate", "handover"] {
        if let Some((head, rest)) = shown.split_once(&format!("\"{field}\":\"")) {
            // A quotation mark within the text has a backslash before it.
            let end =
                rest.char_indices().find(|(at, letter)| *letter == '"' && !rest[..*at].ends_with('\\')).unwrap().0;
            shown = format!("{head}\"{field}\":\"…{}", &rest[end..]);
        }
    }
    shown.replace(",\"", ",\n \"")
}

/// Downloads a kubeconfig. The password goes through a pipe, since everybody can see arguments.
fn download(name: &str) -> String {
    let login = format!(r#"printf 'user = "%s:%s"\n' "${name}_ID" "${name}_PASSWORD""#);
    let curl = "curl -sS --fail-with-body --cacert daypass-ca.crt -K -";
    format!(r#"{login} | {curl} -o {name}.kubeconfig "$MEMBERS/${name}_ID/kubeconfig""#)
}

/// What the engineer does.
pub fn works_with_kubectl(terminal: &mut Session, member: &Member) {
    terminal.say(&format!(
        "The engineer, who was given the credential (here in `${0}_ID` and `${0}_PASSWORD`), \
        downloads a kubeconfig and works with it:",
        member.name
    ));
    terminal.run(&download(&member.name));
    let whoami = terminal.run(&format!("kubectl --kubeconfig {}.kubeconfig auth whoami", member.name));
    let (role, name) = member.id.split_once('.').unwrap();
    assert!(whoami.contains(&format!("system:serviceaccount:daypass-{role}:{name}")), "{whoami}");
    let pods = terminal.run(&format!("kubectl --kubeconfig {}.kubeconfig get pods --all-namespaces", member.name));
    assert!(pods.contains("daypass-"), "{pods}");
    // Daypass's logs are the audit trail.
    let refused = terminal
        .refused(&format!("kubectl --kubeconfig {}.kubeconfig logs -n daypass deployment/daypass", member.name));
    assert!(refused.contains("Forbidden"), "{refused}");
    let refused =
        terminal.refused(&format!("kubectl --kubeconfig {}.kubeconfig get secrets --all-namespaces", member.name));
    assert!(refused.contains("Forbidden"), "{refused}");
    let refused = terminal.refused(&format!(
        "kubectl --kubeconfig {}.kubeconfig exec --namespace daypass deployment/daypass -- /daypass --version",
        member.name
    ));
    // kubectl 1.37 says "is forbidden" only.
    assert!(refused.contains("forbidden"), "{refused}");
}

/// A member of the role that was added may run something in the pods of its one namespace.
pub fn runs_a_command_in_a_pod(terminal: &mut Session) {
    creates(terminal, "shop-debug", "debug");
    terminal.say(
        "A member of the new role, made in the same way, runs a program in a pod of that namespace, and in no other:",
    );
    let ran =
        terminal.run("kubectl --kubeconfig debug.kubeconfig exec --namespace shop web -- /pause hello from the pod");
    assert_eq!(ran, "hello from the pod");
    terminal.quiet("kubectl --kubeconfig debug.kubeconfig logs --namespace shop web");
    let refused =
        terminal.refused("kubectl --kubeconfig debug.kubeconfig auth can-i create pods/exec --namespace daypass");
    assert_eq!(refused, "no");
}

/// DELETE ends the kubeconfig within the 10 s of the API server's cache.
pub fn revocation_ends_access(terminal: &mut Session, member: &Member) {
    terminal.say(
        "The owner ends the first member. The API server remembers a token that it has just accepted for \
        ten seconds; then:",
    );
    terminal.run(&format!("owner -X DELETE \"$MEMBERS/${}_ID\"", member.name));
    let get = format!("kubectl --kubeconfig {}.kubeconfig get pods --all-namespaces", member.name);
    terminal.eventually("the kubeconfig is refused", &format!("! {get}"));
    let refused = terminal.refused(&get);
    assert!(refused.contains("Unauthorized") || refused.contains("must be logged in"), "{refused}");
}
