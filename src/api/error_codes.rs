//! Every error code, with its HTTP status, its title, and the cause and remedy that `docs/errors.md` gives.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// What is known of a code.
pub(super) struct Entry {
    /// The code, as programs read it.
    pub(super) code: &'static str,
    pub(super) status: StatusCode,
    /// The meaning, as people read it in an answer.
    pub(super) title: &'static str,
    /// Why a client gets it.
    pub(super) cause: &'static str,
    /// What to do about it.
    pub(super) remedy: &'static str,
}

/// Defines [`Code`] and its entries from one table, so that no code can lack one.
macro_rules! codes {
    ($($variant:ident { code: $code:tt, status: $status:ident, title: $title:literal, cause: $cause:literal,
        remedy: $remedy:literal, })+) => {
        /// A stable code for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
        pub enum Code {
            $(#[serde(rename = $code)] $variant,)+
        }

        impl Code {
            /// Every code, by its status.
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];

            /// What is known of the code.
            pub(super) fn entry(self) -> Entry {
                match self {
                    $(Self::$variant => Entry {
                        code: $code,
                        status: StatusCode::$status,
                        title: $title,
                        cause: $cause,
                        remedy: $remedy,
                    },)+
                }
            }
        }
    };
}

codes! {
    Validation {
        code: "DP_ERR_VALIDATION",
        status: BAD_REQUEST,
        title: "The request is invalid",
        cause: "A field of the body, a query parameter, or the header `Idempotency-Key` or `Content-Length` is \
            missing, unknown, repeated or out of range.",
        remedy: "Correct what `errors` names: each entry has the field and the rule that it breaks.",
    }
    MalformedBody {
        code: "DP_ERR_MALFORMED_BODY",
        status: BAD_REQUEST,
        title: "The body is not valid JSON",
        cause: "The body does not parse as JSON, was cut off, or took longer than 10 seconds to arrive.",
        remedy: "Send one complete JSON object; `detail` has the line and column of a syntax error.",
    }
    NoCredentials {
        code: "DP_ERR_NO_CREDENTIALS",
        status: UNAUTHORIZED,
        title: "No credentials were sent",
        cause: "The request has no `Authorization` header.",
        remedy: "Authenticate with one of the schemes in `WWW-Authenticate`.",
    }
    MalformedAuthorization {
        code: "DP_ERR_MALFORMED_AUTHORIZATION",
        status: UNAUTHORIZED,
        title: "The Authorization header cannot be parsed",
        cause: "The `Authorization` header is sent twice, is longer than 16 KiB, has an unknown scheme, or its Basic \
            value is not base64 of `user:password`.",
        remedy: "Send one header of the form `Bearer <token>`, `Token <token>` or `Basic <base64>`.",
    }
    CredentialRefused {
        code: "DP_ERR_CREDENTIAL_REFUSED",
        status: UNAUTHORIZED,
        title: "The credential was refused",
        cause: "The credential is unknown, mistyped, expired or revoked, its owner is gone, its audience is wrong, \
            or it is of a kind that this call does not accept. The answer never says which.",
        remedy: "Get a new one: a Kubernetes token with `--audience=daypass`, an ID token, an access token, or, for a \
            member, a new credential from `POST /members/{id}/credentials`. \
            Why an ID token was refused is in the log.",
    }
    TokenAuthenticationDisabled {
        code: "DP_ERR_TOKEN_AUTHENTICATION_DISABLED",
        status: UNAUTHORIZED,
        title: "Token based authentication is disabled",
        cause: "The request carries an access token, and the operator has turned access tokens off.",
        remedy: "Use a Kubernetes token, or ask the operator to add `access-token` to `server.authMethods`.",
    }
    Forbidden {
        code: "DP_ERR_FORBIDDEN",
        status: FORBIDDEN,
        title: "The caller lacks a right",
        cause: "RBAC gives the caller this right in no role, or `detail` names a right on access tokens that it \
            lacks or something that its kind of credential may not do.",
        remedy: "Have the caller bound to `daypass-engines-manage` (or the right that `detail` names), or use \
            another credential.",
    }
    CrossSite {
        code: "DP_ERR_CROSS_SITE",
        status: FORBIDDEN,
        title: "A page of another site made the browser send this",
        cause: "A browser added Basic credentials to a request that a page of another site caused, or a proxy \
            changed `Origin` or `Sec-Fetch-*`.",
        remedy: "Open the link directly. Behind a proxy, pass both headers on unchanged.",
    }
    InsufficientScope {
        code: "DP_ERR_INSUFFICIENT_SCOPE",
        status: FORBIDDEN,
        title: "The access token lacks a scope",
        cause: "The access token does not have the scope that this call needs, or was asked to make a token with \
            more scopes than its own.",
        remedy: "Use a token with the scope that `WWW-Authenticate` names.",
    }
    TokensDisabled {
        code: "DP_ERR_TOKENS_DISABLED",
        status: FORBIDDEN,
        title: "Token based authentication is disabled",
        cause: "The call would create or rotate an access token, and the operator has turned access tokens off.",
        remedy: "Ask the operator to add `access-token` to `server.authMethods`. Listing and revoking still work.",
    }
    RefusedByClusterPolicy {
        code: "DP_ERR_REFUSED_BY_CLUSTER_POLICY",
        status: FORBIDDEN,
        title: "Refused by a cluster policy",
        cause: "An admission webhook or admission policy of the cluster (Kyverno, Gatekeeper and others) does not let \
            Daypass write the object. The answer does not name it.",
        remedy: "Do not repeat the request as it is. Have the operator look up `requestId` in Daypass's log, which \
            names the policy, and exempt Daypass's service account from it.",
    }
    NotFound {
        code: "DP_ERR_NOT_FOUND",
        status: NOT_FOUND,
        title: "Not found",
        cause: "The path, the data plane, the member, the kubeconfig or the token does not exist, has ended, or is \
            out of the caller's reach.",
        remedy: "Check the id and the data plane in the URL, and that the caller may access that role. An ended \
            member cannot come back: create a new one.",
    }
    MethodNotAllowed {
        code: "DP_ERR_METHOD_NOT_ALLOWED",
        status: METHOD_NOT_ALLOWED,
        title: "The method is not allowed here",
        cause: "The path exists, but not with this method.",
        remedy: "Use a method that `Allow` names.",
    }
    IdempotencyKeyReused {
        code: "DP_ERR_IDEMPOTENCY_KEY_REUSED",
        status: CONFLICT,
        title: "The request was carried out before",
        cause: "The same caller already created a member with this `Idempotency-Key`, and that member still lives.",
        remedy: "Read the member at `Location`. Its credential cannot be shown again: issue a new one, or delete the \
            member.",
    }
    IdempotencyKeyMismatch {
        code: "DP_ERR_IDEMPOTENCY_KEY_MISMATCH",
        status: UNPROCESSABLE_ENTITY,
        title: "The Idempotency-Key belongs to another request",
        cause: "The same caller created a member with this `Idempotency-Key` and another body or in another role, and \
            that member still lives.",
        remedy: "Use a new key for each member, and the same body when you repeat a request.",
    }
    TooManyMembers {
        code: "DP_ERR_TOO_MANY_MEMBERS",
        status: CONFLICT,
        title: "The role has its maximum number of members",
        cause: "The quota in the role's namespace is used up (`maxMembersPerRole`, or the role's `maxMembers`).",
        remedy: "Delete a member that is no longer needed, or have the operator raise the quota.",
    }
    QuotaExceeded {
        code: "DP_ERR_QUOTA_EXCEEDED",
        status: CONFLICT,
        title: "A quota of the cluster is used up",
        cause: "A ResourceQuota other than the role's limit on members leaves no room for an object that Daypass \
            needs. `detail` names the quota and what it counts.",
        remedy: "Have the operator of the cluster raise that quota, or delete what is no longer needed.",
    }
    TooManyKubeconfigs {
        code: "DP_ERR_TOO_MANY_KUBECONFIGS",
        status: CONFLICT,
        title: "The member has its maximum number of kubeconfigs",
        cause: "The member has ten live kubeconfigs.",
        remedy: "Revoke one with `DELETE /members/{id}/kubeconfigs/{jti}`, or use one that was downloaded before.",
    }
    TooManyTokens {
        code: "DP_ERR_TOO_MANY_TOKENS",
        status: CONFLICT,
        title: "The owner has its maximum number of access tokens",
        cause: "The owner has as many live access tokens as `accessTokens.maxPerOwner` allows.",
        remedy: "Revoke one that is no longer needed.",
    }
    MembershipTooShort {
        code: "DP_ERR_MEMBERSHIP_TOO_SHORT",
        status: CONFLICT,
        title: "Too little of the membership is left",
        cause: "A direct kubeconfig's token lives for at least 600 seconds and ends 70 seconds before the member, so \
            at least 670 seconds must be left. A gateway kubeconfig needs no such time.",
        remedy: "Ask the owner to extend the member, then download the kubeconfig again.",
    }
    Conflict {
        code: "DP_ERR_CONFLICT",
        status: CONFLICT,
        title: "It was changed at the same time",
        cause: "Another request, a replica or `kubectl` changed the same object at the same time.",
        remedy: "Read the object again and repeat the request.",
    }
    BodyTooLarge {
        code: "DP_ERR_BODY_TOO_LARGE",
        status: PAYLOAD_TOO_LARGE,
        title: "The body is too large",
        cause: "The body is larger than 64 KiB.",
        remedy: "Send less; no valid request comes near the limit.",
    }
    UriTooLong {
        code: "DP_ERR_URI_TOO_LONG",
        status: URI_TOO_LONG,
        title: "The path or the query is too long",
        cause: "The path is longer than 1 KiB or the query is longer than 16 KiB.",
        remedy: "Shorten it; no valid request is that long.",
    }
    UnsupportedMediaType {
        code: "DP_ERR_UNSUPPORTED_MEDIA_TYPE",
        status: UNSUPPORTED_MEDIA_TYPE,
        title: "The body must be plain application/json",
        cause: "The `Content-Type` is not `application/json` (or, for `PATCH`, `application/merge-patch+json`), or \
            the body has a `Content-Encoding`.",
        remedy: "Send `Content-Type: application/json` and do not compress the body.",
    }
    TooManyAttempts {
        code: "DP_ERR_TOO_MANY_ATTEMPTS",
        status: TOO_MANY_REQUESTS,
        title: "Too many refused credentials came from this address",
        cause: "More credentials from this address were refused in a minute than `server.maxRefusedCredentials` \
            allows.",
        remedy: "Wait for `Retry-After` and correct the credential. A valid one is still accepted. Behind a proxy, \
            have the operator set `server.trustedProxies`.",
    }
    TooManyDenials {
        code: "DP_ERR_TOO_MANY_DENIALS",
        status: TOO_MANY_REQUESTS,
        title: "The caller was denied too often",
        cause: "This identity made more requests a minute that it has no right to than `server.maxDeniedRequests` \
            allows.",
        remedy: "Wait for `Retry-After`, and give the caller the missing right or stop the requests. Requests that \
            it may make still work.",
    }
    Internal {
        code: "DP_ERR_INTERNAL",
        status: INTERNAL_SERVER_ERROR,
        title: "Internal error",
        cause: "Daypass has a bug, or something failed that it does not expect.",
        remedy: "Look up `requestId` in Daypass's log and report the fault.",
    }
    Unavailable {
        code: "DP_ERR_UNAVAILABLE",
        status: SERVICE_UNAVAILABLE,
        title: "Daypass or the Kubernetes API is unavailable",
        cause: "The API server did not answer, refused Daypass or is too busy; Daypass itself has no capacity left; \
            the caller has 64 requests in progress; the issuer of an ID token does not answer, or was asked for new \
            keys a moment ago; or Kubernetes has not counted a new role's quota yet.",
        remedy: "Repeat the request after `Retry-After`, a creation with an `Idempotency-Key`. If the error \
            persists, look up `requestId` in Daypass's log.",
    }
}

impl Code {
    /// The code, as programs read it.
    pub(super) fn as_str(self) -> &'static str {
        self.entry().code
    }

    /// The HTTP status of the code.
    pub(super) fn status(self) -> StatusCode {
        self.entry().status
    }

    /// The meaning of the code, for people.
    pub(super) fn title(self) -> &'static str {
        self.entry().title
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_plain_texts_and_its_own_name() {
        for code in Code::ALL {
            let Entry { code: name, status, title, cause, remedy } = code.entry();
            assert_eq!(serde_json::to_value(code).unwrap(), name);
            assert!(status.is_client_error() || status.is_server_error(), "{name}");
            for text in [title, cause, remedy] {
                assert!(!text.is_empty() && text.len() < 300, "{name}: {text}");
                assert!(text.trim() == text && !text.contains('\n') && !text.contains("  "), "{name}: {text}");
            }
            assert!(!title.ends_with('.') && cause.ends_with('.') && remedy.ends_with('.'), "{name}");
        }
    }
}
