//! A member ends just after the leader was killed.

use std::thread;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use daypass::clock::Clock;

use crate::cluster::ready_pods;
use crate::session::Session;

/// How long after its end a member's objects may still exist. Its access is refused from its end on.
const LAG: TimeDelta = TimeDelta::seconds(15);
/// How long before the member's end the leader is killed: less than another replica needs to notice.
const BEFORE: TimeDelta = TimeDelta::seconds(8);

const MEMBER: &str = r"kubectl apply -f - <<'EOF'
apiVersion: daypass.dev/v1alpha1
kind: Member
metadata:
  name: short
  namespace: daypass-nodes-view
spec:
  duration: 60s
EOF";
/// Sets and prints `$LEADER`, the name of its pod.
pub const LEADER: &str =
    "LEADER=$(kubectl get lease daypass --namespace daypass -o 'jsonpath={.spec.holderIdentity}'); echo $LEADER";
const KILL: &str = concat!(
    r#"CONTAINER=$(kubectl get pod "$LEADER" --namespace daypass "#,
    "-o 'jsonpath={.status.containerStatuses[0].containerID}')\n",
    r#"kill -KILL "$(ctr --namespace k8s.io tasks list | awk -v id="${CONTAINER#*//}" '$1 == id { print $2 }')""#
);

/// This machine's time, which is the API server's too.
fn now() -> DateTime<Utc> {
    Clock::default().local()
}

fn wait_until(then: DateTime<Utc>) {
    while now() < then {
        thread::sleep(Duration::from_millis(10));
    }
}

/// A replica whose process was killed.
pub struct Killed {
    pub leader: String,
    /// How often it had been started again before.
    restarts: String,
}

/// Kills the process of the replica that leads.
pub fn kill_leader(terminal: &mut Session) -> Killed {
    let leader = terminal.run(LEADER);
    let restarts = terminal.quiet(&restarts(&leader));
    terminal.run(KILL);
    Killed { leader, restarts }
}

/// Waits until Kubernetes has started it again.
pub fn is_back(terminal: &mut Session, killed: &Killed) {
    let restarted = format!("test \"$({})\" != {}", restarts(&killed.leader), killed.restarts);
    terminal.eventually("Kubernetes has started it again", &restarted);
    terminal.quiet(
        "kubectl wait --namespace daypass --for condition=Ready pod --selector app.kubernetes.io/name=daypass \
        --timeout 120s",
    );
}

fn restarts(pod: &str) -> String {
    format!("kubectl get pod {pod} -n daypass -o 'jsonpath={{.status.containerStatuses[0].restartCount}}'")
}

pub fn member_ends_on_time_after_the_leader_is_killed(terminal: &mut Session) {
    terminal.say("A member of sixty seconds, made with `kubectl`, and a credential for it:");
    terminal.run(MEMBER);
    let credential = r#"owner -X POST "$MEMBERS/nodes-view.short/credentials""#;
    let answer = terminal.eventually("it has a credential", credential);
    let password = answer.split_once("\"password\":\"").unwrap().1.split_once('"').unwrap().0;
    terminal.hide(password.rsplit_once('_').unwrap().1, "…");
    terminal.quiet(&format!("short_PASSWORD={password}"));
    let ends =
        terminal.run("kubectl get member short --namespace daypass-nodes-view -o 'jsonpath={.status.expiresAt}'");
    let ends: DateTime<Utc> = ends.parse().unwrap();

    wait_until(ends - BEFORE);
    terminal.say("Eight seconds before its end, the process of the replica that ends members is killed with SIGKILL:");
    let leader = kill_leader(terminal);
    let killed = now();

    // The other replica answers throughout. Each request has its own connection, so some reach the dead one until
    // Kubernetes has noticed. They fail and prove nothing.
    let me = concat!(
        r#"printf 'user = "nodes-view.short:%s"\n' "$short_PASSWORD" | "#,
        "curl -sS --max-time 5 --cacert daypass-ca.crt -K - -o /dev/null -w '%{http_code}' ",
        r#""$MEMBERS/nodes-view.short/me""#
    );
    let gone = "kubectl get member short --namespace daypass-nodes-view --ignore-not-found -o name";
    let (mut accepted, mut refused, mut reaped) = (None, None, None);
    while refused.is_none() || reaped.is_none() {
        let asked = now();
        match terminal.attempt(me).0.as_str() {
            "200" => accepted = Some(asked),
            // Decided by the time of the answer: it may have been asked for just before the end.
            "401" if refused.is_none() => refused = Some(now()),
            _ => {}
        }
        if terminal.quiet(gone).is_empty() && reaped.is_none() {
            reaped = Some(now());
        }
        assert!(asked < ends + LAG, "not refused, or still there, {LAG} after its end: {refused:?} {reaped:?}");
    }
    let (accepted, refused, reaped) = (accepted.unwrap(), refused.unwrap(), reaped.unwrap());
    assert!(killed < ends, "killed {killed}, ends {ends}: the machine was too slow to kill it in time");
    assert!(accepted < ends && ends <= refused, "accepted until {accepted}, refused from {refused}, ends {ends}");
    assert!(ends <= reaped, "reaped {reaped} before its end {ends}");

    let seconds = |time: DateTime<Utc>| (time - ends).as_seconds_f64();
    terminal.say(&format!(
        "Its credential was accepted until {:.1} s before the end, and refused {:.1} s after it. The member was \
            removed {:.1} s after its end. The killed replica is back:",
        -seconds(accepted),
        seconds(refused),
        seconds(reaped)
    ));
    is_back(terminal, &leader);
    terminal.run("kubectl get pods --namespace daypass");
    assert_eq!(ready_pods(terminal).len(), 2);
    let left = terminal.quiet("kubectl get members,serviceaccounts,secrets --namespace daypass-nodes-view -o name");
    assert_eq!(left, "serviceaccount/default", "nothing of the member is left");
}
