//! The OpenAPI 3.1 document, made from the handlers.

use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
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
        (name = "sessions", description = "Short sessions in exchange for an access token, for browsers")
    )
)]
struct Base;

/// What may answer any operation.
const PROBLEMS: [(&str, &str); 11] = [
    ("400", "The request does not have the right content; `errors` names the fields"),
    ("401", "Not authenticated; `WWW-Authenticate` says how to"),
    (
        "403",
        "The caller has this right on no role at all, or its access token lacks the scope: `detail` names what is missing. Or a page of another site had a browser send Basic credentials: `DP_ERR_CROSS_SITE`",
    ),
    ("404", "No such thing, or out of the caller's reach"),
    ("405", "The method is not allowed here"),
    ("409", "The state of the thing does not allow it; `code` says why"),
    ("413", "The body is too large"),
    ("414", "The path or the query is longer than any valid one"),
    ("415", "The body is not application/json"),
    (
        "429",
        "Too many refused credentials came from this address, or the caller has asked too often for what it has no right to; `Retry-After` says when to try again",
    ),
    (
        "503",
        "Daypass or the Kubernetes API is unavailable, or has too much to do; `Retry-After` says when to try again",
    ),
];

/// The headers that come with some of them.
const PROBLEM_HEADERS: [(&str, &str, &str); 4] = [
    ("401", "WWW-Authenticate", "How to authenticate"),
    ("429", "Retry-After", "In how many seconds to try again"),
    ("405", "Allow", "The methods that are allowed"),
    ("503", "Retry-After", "In how many seconds to try again"),
];

/// The document; with a data plane's id it is that one's.
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
        "A Kubernetes service-account token for the audience `daypass`: `kubectl create token NAME --audience=daypass`.",
    );
    scheme(
        "accessToken",
        HttpAuthScheme::Bearer,
        "An access token, `dpp_…`, or a session of one; also `Authorization: Token …`. The scopes that it needs are given with each operation.",
    );
    scheme(
        "accessTokenBasic",
        HttpAuthScheme::Basic,
        "The user name of an access token's owner, or the token's id, and the token. What stands before the last colon is the name.",
    );
    scheme("memberCredential", HttpAuthScheme::Basic, "The member's id and its credential.");
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post, &mut path.patch, &mut path.delete] {
            operation.iter_mut().for_each(add_problems);
        }
    }
    document
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
