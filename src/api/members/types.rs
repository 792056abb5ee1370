//! Members in JSON.

use std::borrow::Cow;

use chrono::{DateTime, SubsecRound as _, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{OneOfBuilder, Schema, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::api::fields::whole_number;
use crate::api::settings::Settings;
use crate::domain::lifetime::MembershipDuration;
use crate::domain::member::{Credential, Member, Phase};

/// The state of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = MemberStatus)]
pub enum MemberState {
    /// Being set up.
    Pending,
    /// In force.
    Active,
}

/// A temporary member.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Member)]
pub struct MemberView {
    /// The member's id: its role's id, a dot, its name.
    #[schema(example = "projects-view.k7f3x9qm")]
    pub id: String,
    /// The role.
    #[schema(example = "projects-view")]
    pub role_id: String,
    /// Who the membership is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub username: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub description: Option<String>,
    /// The caller that created it; absent if not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub created_by: Option<String>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
    /// Seconds from its creation to its end.
    #[schema(minimum = 1, maximum = 172800)]
    pub duration_seconds: i64,
    /// Seconds from now to its end.
    #[schema(minimum = 0, maximum = 172800)]
    pub seconds_left: i64,
    /// Its state.
    pub status: MemberState,
    /// Whether its credential has been used: to download a kubeconfig or to sign in. False before there is one, and
    /// after a new one was issued.
    #[serde(default)]
    pub credential_used: bool,
    /// How many kubeconfigs it has that work; absent if not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub kubeconfigs: Option<usize>,
}

impl MemberView {
    pub(crate) fn new(member: &Member, now: DateTime<Utc>) -> Self {
        let expires_at = member.expires_at();
        let active = member.status.phase == Some(Phase::Active);
        Self {
            id: member.id.to_string(),
            role_id: member.id.role.to_string(),
            username: member.username.clone(),
            description: member.description.clone(),
            created_by: member.created_by.clone(),
            created_at: member.created_at,
            // A notAfter set with kubectl may have fractions of a second; times here are whole seconds.
            expires_at: expires_at.trunc_subsecs(0),
            duration_seconds: (expires_at - member.created_at).num_seconds().max(0),
            seconds_left: (expires_at - now).num_seconds().max(0),
            status: if active { MemberState::Active } else { MemberState::Pending },
            credential_used: member.has_used_credential(),
            kubeconfigs: member
                .status
                .kubeconfigs
                .as_ref()
                .map(|records| records.iter().filter(|record| record.is_wanted(member, now)).count()),
        }
    }
}

/// Tells a member's credentials apart; empty if it has none.
pub(crate) fn credential_digits(member: &Member) -> &str {
    member.status.credential.as_ref().map_or("", |credential| credential.fingerprint())
}

/// A member's credential, shown once in the answer that issues it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The member's id.
    pub username: String,
    /// The secret. It is not stored and cannot be shown again.
    #[serde(serialize_with = "crate::api::fields::expose")]
    #[schema(value_type = String)]
    pub password: SecretString,
    /// The URL to download a kubeconfig from, with this credential.
    #[schema(format = Uri)]
    pub kubeconfig_url: String,
    /// Daypass's certificate or its CA, as PEM; absent if clients trust it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub ca_certificate: Option<String>,
    /// A text to forward, without the password: how to get the kubeconfig, and when the access ends.
    pub handover: String,
}

impl Credentials {
    /// The password, for the one page that shows it.
    pub(crate) fn secret(&self) -> &str {
        self.password.expose_secret()
    }

    pub(super) fn new(member: &Member, credential: &Credential, settings: &Settings) -> Self {
        Self {
            username: member.id.to_string(),
            password: credential.expose().to_owned().into(),
            kubeconfig_url: settings.kubeconfig_url(&member.id),
            ca_certificate: settings.ca_certificate.clone(),
            handover: settings.handover(member),
        }
    }
}

/// A duration in whole hours, 1 to 48, as a number or as a string of digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hours(pub(super) MembershipDuration);

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "whole hours from 1 to 48";
        let hours = MembershipDuration::hours(whole_number(deserializer, EXPECTED)?);
        hours.map(Self).map_err(|_| de::Error::custom(format_args!("must be {EXPECTED}")))
    }
}

impl PartialSchema for Hours {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^([1-9]|[1-3][0-9]|4[0-8])$"));
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(48));
        let either = OneOfBuilder::new().item(text).item(number);
        either.description(Some("Whole hours, 1 to 48, as a string or a number.")).into()
    }
}

impl ToSchema for Hours {
    fn name() -> Cow<'static, str> {
        "Hours".into()
    }
}
