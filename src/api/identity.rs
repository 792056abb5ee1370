//! `GET /self`: who the caller is to Daypass, and what it may do.

use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures::future::try_join;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::State;
use super::fields::NO_STORE;
use super::page::only_parameter;
use super::problem::Problem;
use super::request_context::RequestContext;
use super::sessions::SessionKindView;
use crate::authn::Caller;
use crate::cluster::{Access, Privilege, Resource, Verb};
use crate::domain::access_token::{AccessToken, Extra, Scope};
use crate::domain::role::RoleId;

/// Who the caller is, and what it may do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Self)]
pub(crate) struct SelfView {
    /// The Kubernetes user name.
    #[schema(example = "corp:ada@example.com")]
    pub(crate) username: String,
    /// The UID, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    uid: Option<String>,
    /// The groups.
    groups: Vec<String>,
    /// Further attributes, which authorizers may use.
    #[serde(skip_serializing_if = "Extra::is_empty")]
    #[schema(required = false)]
    extra: Extra,
    /// The issuer of its ID tokens, if it is a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    issuer: Option<String>,
    /// Who it is at that issuer: the claim `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    subject: Option<String>,
    /// What it presented.
    pub(crate) credential: CredentialView,
    /// The scopes of its access token; all of them with any other credential.
    #[schema(value_type = Vec<crate::api::schemas::ScopeSchema>)]
    pub(crate) scopes: Vec<Scope>,
    /// Its rights on access tokens.
    pub(crate) privileges: Privileges,
    /// Its rights in the role that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub(crate) role: Option<RoleRights>,
}

/// What a caller presented.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CredentialView {
    /// Its kind.
    r#type: CredentialKind,
    /// What a session was issued for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    issued_for: Option<SessionKindView>,
    /// The id of the access token; of a session, of the one that opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    token_id: Option<String>,
    /// When it ends, if Daypass knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

/// A kind of credential.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum CredentialKind {
    KubernetesToken,
    IdToken,
    AccessToken,
    Session,
}

/// The rights on access tokens, as RBAC gives them. To use them, an access token needs the scopes as well.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Privileges {
    /// To have access tokens of its own.
    pub(crate) generate_access_tokens: bool,
    /// To manage those of everybody.
    pub(crate) manage_access_tokens: bool,
}

/// The rights in a role, as RBAC gives them. All are false in a role that does not exist.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoleRights {
    /// The role.
    id: String,
    pub(crate) create_members: bool,
    pub(crate) get_members: bool,
    pub(crate) list_members: bool,
    /// To extend and shorten them.
    pub(crate) update_members: bool,
    /// To end them early.
    pub(crate) delete_members: bool,
    /// To issue new credentials.
    pub(crate) create_credentials: bool,
    /// To revoke single kubeconfigs.
    pub(crate) delete_kubeconfigs: bool,
}

pub(super) fn router() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(get_self))
}

/// Who am I
///
/// Who the caller is to Daypass, by which credential, and what it may do: its scopes, its rights on access tokens, and
/// its rights in one role if it asks for them. It needs no right.
#[utoipa::path(
    get,
    path = "/self",
    tag = "self",
    params(("roleId" = Option<String>, Query, description = "Also the rights in this role.", min_length = 1)),
    responses((status = 200, description = "The caller", body = SelfView)),
    security(("kubernetesToken" = []), ("accessToken" = []), ("accessTokenBasic" = []))
)]
async fn get_self(context: RequestContext, caller: Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let role = only_parameter(query.as_deref().unwrap_or_default(), "roleId")?;
    let view = context.self_view(&caller, role.as_deref()).await?;
    Ok(([NO_STORE], axum::Json(view)).into_response())
}

impl RequestContext {
    /// Who the caller is, and what it may do, in this role as well.
    pub(crate) async fn self_view(&self, caller: &Caller, role: Option<&str>) -> Result<SelfView, Problem> {
        let privileges = async {
            let of = |privilege| self.has_privilege(caller, privilege);
            let (generate, manage) = try_join(of(Privilege::Generate), of(Privilege::Manage)).await?;
            Ok::<_, Problem>(Privileges { generate_access_tokens: generate, manage_access_tokens: manage })
        };
        let role = async {
            match role {
                Some(id) => self.rights_in(caller, id).await.map(Some),
                None => Ok(None),
            }
        };
        let (privileges, role) = try_join(privileges, role).await?;
        let identity = &caller.identity;
        let person = identity.subject.as_ref();
        Ok(SelfView {
            username: identity.username.clone(),
            uid: identity.uid.clone(),
            groups: identity.groups.clone(),
            extra: identity.extra.clone(),
            issuer: person.map(|person| person.issuer.clone()),
            subject: person.map(|person| person.subject.clone()),
            credential: CredentialView::of(caller),
            scopes: Scope::ALL.into_iter().filter(|scope| caller.has_scope(*scope)).collect(),
            privileges,
            role,
        })
    }

    /// What RBAC lets the caller do in a role. Whether the role exists makes no difference to what is asked.
    pub(crate) async fn rights_in(&self, caller: &Caller, id: &str) -> Result<RoleRights, Problem> {
        let none = || RoleRights { id: id.to_owned(), ..RoleRights::default() };
        let Some(role) = RoleId::parse(id) else { return Ok(none()) };
        // One after the other, and a denial is remembered: whoever has no right may ask as often as they like.
        let may = |verb, resource| self.has_right(caller, Access { verb, resource }, &role);
        let rights = RoleRights {
            id: id.to_owned(),
            create_members: may(Verb::Create, Resource::Members).await?,
            get_members: may(Verb::Get, Resource::Members).await?,
            list_members: may(Verb::List, Resource::Members).await?,
            update_members: may(Verb::Update, Resource::Members).await?,
            delete_members: may(Verb::Delete, Resource::Members).await?,
            create_credentials: may(Verb::Create, Resource::MembersCredentials).await?,
            delete_kubeconfigs: may(Verb::Delete, Resource::MembersKubeconfigs).await?,
        };
        let exists = self.state.feed.role(&self.state.cluster, &role).await?.is_some();
        Ok(if exists { rights } else { none() })
    }
}

impl CredentialView {
    fn of(caller: &Caller) -> Self {
        let token_id = caller.token.as_ref().map(|token| token.id.to_string());
        let (session, token) = (caller.session.as_ref(), caller.token.as_ref());
        let kind = match (session, token) {
            (Some(_), _) => CredentialKind::Session,
            (None, Some(_)) => CredentialKind::AccessToken,
            (None, None) if caller.identity.subject.is_some() => CredentialKind::IdToken,
            (None, None) => CredentialKind::KubernetesToken,
        };
        Self {
            r#type: kind,
            issued_for: session.and_then(AccessToken::session_kind).map(Into::into),
            token_id,
            expires_at: session.or(token).map(|it| it.expires_at).or(caller.token_end),
        }
    }
}
