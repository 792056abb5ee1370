//! The OpenAPI 3.1 document, generated from the handlers.

use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::{ServerBuilder, ServerVariableBuilder};
use utoipa::openapi::{Content, HeaderBuilder, Object, OpenApi, Ref, Response, Type};

use super::problem::{Code, FieldError, ProblemBody};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Daypass",
        description = "Temporary members of a Kubernetes cluster: one role, at most 48 hours, gone at the end.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ProblemBody, FieldError, Code)),
    tags(
        (name = "members", description = "For the owner of the cluster"),
        (name = "kubeconfigs", description = "For the engineer, and for the owner"),
        (name = "me", description = "For the engineer"),
        (name = "tokens", description = "Access tokens, for callers outside Kubernetes"),
        (name = "self", description = "Who the caller is, and what it may do"),
        (name = "sessions", description = "Short sessions for browsers, opened with any credential")
    )
)]
struct Base;

/// The errors that any operation can answer with.
const PROBLEMS: [(&str, &str); 11] = [
    ("400", "The request is invalid; `errors` names the fields at fault"),
    ("401", "Not authenticated; `WWW-Authenticate` says how to authenticate"),
    (
        "403",
        "The caller has this right in no role, or its access token lacks the scope: `detail` names what is missing. \
         Or a page of another site made a browser send Basic credentials: `DP_ERR_CROSS_SITE`. Or a policy of the \
         cluster refused it: `DP_ERR_REFUSED_BY_CLUSTER_POLICY`",
    ),
    ("404", "Not found, or the caller may not access it"),
    ("405", "The method is not allowed here"),
    ("409", "The current state does not allow this; `code` says why"),
    ("413", "The body is too large"),
    ("414", "The path or the query is longer than any valid one"),
    ("415", "The body is not application/json, or it has a `Content-Encoding`"),
    (
        "429",
        "Too many refused credentials came from this address, or the caller was denied too often; `Retry-After` says \
         when to try again",
    ),
    ("503", "Daypass or the Kubernetes API is unavailable or overloaded; `Retry-After` says when to try again"),
];

/// The headers that some of them have.
const PROBLEM_HEADERS: [(&str, &str, &str); 5] = [
    ("401", "WWW-Authenticate", "How to authenticate"),
    ("429", "Retry-After", "Seconds to wait before the next attempt"),
    ("405", "Allow", "The allowed methods"),
    ("415", "Accept-Encoding", "`identity`, if the body had a `Content-Encoding`"),
    ("503", "Retry-After", "Seconds to wait before the next attempt"),
];

/// The document. A given data plane's id becomes the default in its URLs.
pub fn document(data_plane_id: Option<&str>) -> OpenApi {
    let mut document = Base::openapi();
    document.merge(super::calls().into_openapi());
    let id = data_plane_id.unwrap_or("my-data-plane");
    let server = |base: &str| {
        let variable = ServerVariableBuilder::new().default_value(id).description(Some("The data plane's id"));
        ServerBuilder::new().url(format!("{base}/{{dataPlaneId}}")).parameter("dataPlaneId", variable).build()
    };
    document.servers = Some(vec![server("/processing/data-planes"), server("")]);
    let components = document.components.get_or_insert_default();
    let mut scheme = |name: &str, scheme, description: &str| {
        let mut http = Http::new(scheme);
        http.description = Some(description.to_owned());
        components.add_security_scheme(name, SecurityScheme::Http(http));
    };
    scheme(
        "kubernetesToken",
        HttpAuthScheme::Bearer,
        "A Kubernetes service-account token for the audience `daypass`: \
         `kubectl create token NAME --audience=daypass`.",
    );
    scheme(
        "idToken",
        HttpAuthScheme::Bearer,
        "An ID token of one of the OpenID Connect issuers that the operator has set up, for an audience of Daypass.",
    );
    scheme(
        "accessToken",
        HttpAuthScheme::Bearer,
        "An access token, `dpp_…`, or a session; also as `Authorization: Token …`. Each operation lists the scopes \
         that it needs.",
    );
    scheme(
        "accessTokenBasic",
        HttpAuthScheme::Basic,
        "The user name is that of the access token's owner, or the token's id; the password is the token. The last \
         colon separates them.",
    );
    scheme("memberCredential", HttpAuthScheme::Basic, "The member's id and its credential, or a session of it.");
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post, &mut path.patch, &mut path.delete].into_iter().flatten() {
            add_problems(operation);
            add_id_tokens(operation);
        }
    }
    document
}

/// A person may do what a Kubernetes identity may.
fn add_id_tokens(operation: &mut Operation) {
    let none: [&str; 0] = [];
    let kubernetes = SecurityRequirement::new("kubernetesToken", none);
    for schemes in operation.security.iter_mut().filter(|schemes| schemes.contains(&kubernetes)) {
        schemes.insert(1, SecurityRequirement::new("idToken", none));
    }
}

fn add_problems(operation: &mut Operation) {
    for (status, description) in PROBLEMS {
        let mut response = Response::new(description);
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        response.content.insert("application/problem+json".to_owned(), content.into());
        for (_, name, description) in PROBLEM_HEADERS.into_iter().filter(|(of, ..)| *of == status) {
            let header =
                HeaderBuilder::new().schema(Some(Object::with_type(Type::String))).description(Some(description));
            response.headers.insert(name.to_owned(), header.build().into());
        }
        operation.responses.responses.insert(status.to_owned(), response.into());
    }
}
