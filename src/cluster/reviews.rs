//! Asks the API server who a caller is (TokenReview) and what it may do (SubjectAccessReview).
//!
//! Without a clear yes, the answer is no.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use secrecy::{ExposeSecret as _, SecretString};

use super::objects::decode;
use super::{Cluster, Error, ErrorKind};
use crate::crd::GROUP;
use crate::domain::access_token::{Extra, Subject};
use crate::domain::grants::AUTHENTICATED;
use crate::domain::role::RoleId;

/// An identity that Kubernetes has authenticated, or an ID token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The Kubernetes user name.
    pub username: String,
    /// The UID. A service account has one.
    pub uid: Option<String>,
    /// Who it is at its issuer, if it is a person with an ID token. The API server does not need to know.
    pub subject: Option<Subject>,
    /// The groups.
    pub groups: Vec<String>,
    /// Further attributes. An authorizer may restrict the identity because of them.
    pub extra: Extra,
}

impl Identity {
    /// A service account with the groups that the API server gives it.
    pub fn of_account(namespace: &str, name: &str, uid: Option<String>) -> Self {
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), AUTHENTICATED];
        Self {
            username: format!("system:serviceaccount:{namespace}:{name}"),
            uid,
            subject: None,
            groups: groups.map(str::to_owned).into(),
            extra: Extra::new(),
        }
    }

    /// A user in these groups and in `system:authenticated`.
    pub fn of_user(username: &str, groups: &[String]) -> Self {
        let groups = groups.iter().cloned().chain([AUTHENTICATED.to_owned()]).collect();
        Self { username: username.to_owned(), uid: None, subject: None, groups, extra: Extra::new() }
    }
}

/// What the error of a TokenReview contains if the API server could not decide, since it does not reach an issuer of
/// its structured authentication (k8s.io/apiserver, plugin/pkg/authenticator/token/oidc; go-oidc, jwks.go).
const UNDECIDED: [&str; 2] = ["not initialized", "fetching keys"];

/// A verb on a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The verb.
    pub verb: Verb,
    /// The resource.
    pub resource: Resource,
}

/// An RBAC verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub enum Verb {
    Create,
    Get,
    List,
    Update,
    Delete,
}

/// A right on access tokens: a verb on the resource `personalaccesstokens` in Daypass's own namespace. No type has
/// that name, so the right includes none on objects: with the right to create AccessTokens, a caller could put any
/// owner into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// "Generate Personal Access Tokens": the caller's own tokens.
    Generate,
    /// "Manage All Access Tokens": other owners' tokens too.
    Manage,
}

/// A resource that RBAC gives callers rights on. The subresources exist only as names in RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Resource {
    Members,
    MembersCredentials,
    MembersKubeconfigs,
}

impl Access {
    fn attributes(self, namespace: Option<String>) -> ResourceAttributes {
        let verb = match self.verb {
            Verb::Create => "create",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Update => "update",
            Verb::Delete => "delete",
        };
        let subresource = match self.resource {
            Resource::Members => None,
            Resource::MembersCredentials => Some("credentials"),
            Resource::MembersKubeconfigs => Some("kubeconfigs"),
        };
        ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some("members".to_owned()),
            subresource: subresource.map(str::to_owned),
            verb: Some(verb.to_owned()),
            namespace,
            ..ResourceAttributes::default()
        }
    }
}

impl Cluster {
    /// Authenticates a token for `audience`, or for the API server's own audience without one. Returns `None` if the
    /// token is invalid or for another audience.
    pub async fn review_token(&self, token: &SecretString, audience: Option<&str>) -> Result<Option<Identity>, Error> {
        let audiences = audience.map(|audience| vec![audience.to_owned()]);
        let spec = TokenReviewSpec { audiences, token: Some(token.expose_secret().to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self.objects::<TokenReview>(None).create("create_token_review", "-", &review).await?;
        let answer: TokenReview = decode("create_token_review", "-", &answer)?;
        let status = answer.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            let error = status.error.unwrap_or_default();
            // No answer, then: its keys of the issuer that the token names are missing.
            if UNDECIDED.iter().any(|text| error.contains(text)) {
                return Err(Error::new(
                    "create_token_review",
                    "-",
                    ErrorKind::Server,
                    "no keys of the token's issuer",
                ));
            }
            return Ok(None);
        }
        // An authenticator without audience support answers "authenticated" but does not name our audience.
        let for_us = audience.is_none_or(|ours| status.audiences.iter().flatten().any(|granted| granted == ours));
        let user = status.user.filter(|_| for_us);
        Ok(user.and_then(|user| {
            Some(Identity {
                username: user.username.filter(|name| !name.is_empty())?,
                uid: user.uid,
                subject: None,
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            })
        }))
    }

    /// Whether `identity` has this access in a role's namespace, or in all namespaces if `role` is `None`.
    pub async fn is_allowed(&self, identity: &Identity, access: Access, role: Option<&RoleId>) -> Result<bool, Error> {
        self.review_access(identity, access.attributes(role.map(RoleId::namespace))).await
    }

    /// Whether `identity` has this right on access tokens.
    pub async fn has_privilege(&self, identity: &Identity, privilege: Privilege) -> Result<bool, Error> {
        let verb = match privilege {
            Privilege::Generate => "generate",
            Privilege::Manage => "manage",
        };
        let attributes = ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some("personalaccesstokens".to_owned()),
            verb: Some(verb.to_owned()),
            namespace: Some(self.namespace.clone()),
            ..ResourceAttributes::default()
        };
        self.review_access(identity, attributes).await
    }

    async fn review_access(&self, identity: &Identity, attributes: ResourceAttributes) -> Result<bool, Error> {
        let object = attributes.namespace.clone().unwrap_or_else(|| "-".to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(identity.username.clone()),
                uid: identity.uid.clone(),
                groups: Some(identity.groups.clone()),
                extra: Some(identity.extra.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = self.objects::<SubjectAccessReview>(None);
        let answer = reviews.create("create_subject_access_review", &object, &review).await?;
        let answer: SubjectAccessReview = decode("create_subject_access_review", &object, &answer)?;
        Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}
