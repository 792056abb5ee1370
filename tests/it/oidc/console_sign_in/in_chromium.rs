//! The same in a real browser.

use serde_json::json;

use super::{Console, user};
use crate::console::{Deeds, run};
use crate::oidc::Sso;

#[test]
fn person_signs_in_and_confirms_a_token_in_chromium() {
    let (sso, console) = (Sso::shared(), Console::shared());
    user(&sso.provider, "chloe");
    let owner = sso.daypass.owner.token();
    let context = json!({
        "url": console.daypass.url, "dataPlane": "dp-1", "certificate": sso.cluster.serving_certificate(),
        "issuer": sso.provider.issuer, "person": "chloe", "role": sso.role.id, "owner": owner, "manager": owner,
    });
    run("sso.mjs", &context, &Deeds { cluster: &sso.cluster, daypass: &console.daypass, role: &sso.role });
}
