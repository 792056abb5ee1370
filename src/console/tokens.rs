//! "Settings > Access tokens": generate, list, rename, rotate and revoke.

use askama::Template;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use secrecy::ExposeSecret as _;

use super::ROOT;
use super::form::Fields;
use super::frame::{Frame, When, fits_page, render, status};
use super::login::Deed;
use super::step_up;
use super::visitor::{Owner, Posted};
use crate::api::authentication::caller_problem;
use crate::api::page::Page;
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::api::tokens::{CreateToken, IssuedToken, RotateToken, TokenStatus, TokenView};
use crate::authn::{Caller, Credentials};
use crate::domain::access_token::Scope;

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    frame: Frame,
    tokens: Vec<TokenRow>,
    total: usize,
    /// Whether the list has everybody's.
    is_all: bool,
    may_manage: bool,
    /// Why no token can be generated; the form is greyed out.
    reason: Option<String>,
    name: String,
    days: String,
    /// The issuer with which the owner confirms, instead of typing a credential.
    confirm_with: Option<String>,
    /// Makes a form that is sent twice create one token.
    key: String,
    scopes: Vec<(Scope, bool)>,
    previous: Option<String>,
    next: Option<String>,
}

struct TokenRow {
    view: TokenView,
    created: When,
    end: When,
    last_used: Option<When>,
    is_own: bool,
    /// Which secret a rotation replaces, so that a form that is sent twice rotates once.
    replaces: String,
}

/// A token's secret, once.
#[derive(Template)]
#[template(path = "token.html")]
struct TokenPage {
    frame: Frame,
    name: String,
    end: When,
    secret: String,
    is_rotated: bool,
}

/// The days until a new token ends, unless its owner chooses others.
const USUAL_DAYS: &str = "30";

pub(super) async fn page(
    context: RequestContext,
    owner: Owner,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    show(&context, &owner, &Fields::of_query(query.as_deref()), None).await
}

pub(super) async fn generate(
    context: RequestContext,
    Posted { visitor: owner, fields }: Posted<Owner>,
) -> Result<Response, Problem> {
    // Before anybody has to confirm it.
    if let Err(problem) = new_token(&fields) {
        return refused(&context, &owner, &fields, problem).await;
    }
    let deed = Deed { rotate: None, fields: fields.just(&["name", "expiresInDays", "scopes", "key"]) };
    confirm(&context, &owner, &fields, deed).await
}

fn new_token(fields: &Fields) -> Result<CreateToken, Problem> {
    fields.body_with_lists(&["name", "expiresInDays"], &["scopes"])
}

/// Does it, if it is confirmed by a credential in the form, or goes to have it confirmed.
async fn confirm(context: &RequestContext, owner: &Owner, fields: &Fields, deed: Deed) -> Result<Response, Problem> {
    let problem = match step_up::begin(context, owner, fields, &deed) {
        Some(Ok(response)) => return Ok(response),
        Some(Err(problem)) => problem,
        None => match confirmed(context, owner, fields).await {
            Ok(caller) => return carry_out(context, owner, &caller, &deed).await,
            Err(problem) => problem,
        },
    };
    refused(context, owner, &deed.fields, problem).await
}

/// Does what has been confirmed by this caller.
pub(super) async fn carry_out(
    context: &RequestContext,
    owner: &Owner,
    caller: &Caller,
    deed: &Deed,
) -> Result<Response, Problem> {
    let fields = &deed.fields;
    let issued = async {
        match &deed.rotate {
            None => context.create_token(caller, fields.get("key"), new_token(fields)?).await,
            Some(id) => context.rotate_token(caller, id, Some(fields.text("replaces")), RotateToken::default()).await,
        }
    };
    match issued.await {
        Ok(issued) => show_secret(context, owner, issued, deed.rotate.is_some()),
        // Of a rotation, the form to generate a token shows nothing.
        Err(problem) => refused(context, owner, fields, problem).await,
    }
}

pub(super) async fn rename(
    context: RequestContext,
    Path(id): Path<String>,
    Posted { visitor: owner, fields }: Posted<Owner>,
) -> Result<Response, Problem> {
    let renamed = async { context.update_token(&owner.caller, &id, fields.body(&["name"])?).await };
    match renamed.await {
        Ok(_) => Ok(to_list("renamed")),
        Err(problem) => refused(&context, &owner, &Fields::default(), problem).await,
    }
}

pub(super) async fn rotate(
    context: RequestContext,
    Path(id): Path<String>,
    Posted { visitor: owner, fields }: Posted<Owner>,
) -> Result<Response, Problem> {
    let deed = Deed { rotate: Some(id), fields: fields.just(&["replaces"]) };
    confirm(&context, &owner, &fields, deed).await
}

pub(super) async fn revoke(
    context: RequestContext,
    Path(id): Path<String>,
    Posted { visitor: owner, .. }: Posted<Owner>,
) -> Result<Response, Problem> {
    match context.delete_token(&owner.caller, &id).await {
        Ok(()) => Ok(to_list("token-revoked")),
        Err(problem) if problem.code == Code::NotFound => Ok(to_list("token-gone")),
        Err(problem) => refused(&context, &owner, &Fields::default(), problem).await,
    }
}

/// The owner by the credential in the form itself. A session alone makes no access tokens: whoever finds a browser
/// open for half an hour could keep one for a year.
async fn confirmed(context: &RequestContext, owner: &Owner, fields: &Fields) -> Result<Caller, Problem> {
    let password = fields
        .get("password")
        .ok_or_else(|| Problem::field("password", "is needed again: a session alone does not create access tokens"))?;
    let presented = Credentials::of_form(None, password);
    let authn = &context.state.authn;
    let caller = authn.same_owner(&owner.caller, &presented, &context.operation, &context.origin).await;
    caller.map_err(|refusal| caller_problem(context, refusal))
}

fn to_list(notice: &str) -> Response {
    Redirect::to(&format!("{ROOT}/tokens?notice={notice}")).into_response()
}

fn show_secret(
    context: &RequestContext,
    owner: &Owner,
    issued: IssuedToken,
    is_rotated: bool,
) -> Result<Response, Problem> {
    let page = TokenPage {
        frame: owner.frame(context),
        name: issued.view.name,
        end: When(issued.view.expires_at),
        secret: issued.token.expose_secret().to_owned(),
        is_rotated,
    };
    render(StatusCode::CREATED, &page)
}

async fn refused(
    context: &RequestContext,
    owner: &Owner,
    fields: &Fields,
    problem: Problem,
) -> Result<Response, Problem> {
    if !fits_page(&problem) {
        return Err(problem);
    }
    show(context, owner, fields, Some(&problem)).await
}

async fn show(
    context: &RequestContext,
    owner: &Owner,
    fields: &Fields,
    problem: Option<&Problem>,
) -> Result<Response, Problem> {
    let view = context.self_view(&owner.caller, None).await?;
    let page = Page::parse(&fields.only(&["limit", "offset", "owner"]), &["owner"])?;
    let list = context.list_tokens(&owner.caller, &page).await?;
    let is_all = page.filter("owner").is_some();
    let at = |offset: usize| {
        let owner = if is_all { "&owner=*" } else { "" };
        format!("{ROOT}/tokens?limit={}&offset={offset}{owner}", page.limit)
    };
    let shown = list.offset + list.items.len();
    let ticked: Vec<&str> = fields.all("scopes").collect();
    let own = &owner.caller.identity.username;
    let tokens = TokensPage {
        frame: owner.frame(context).with_notice(fields.text("notice")).with_error(problem),
        total: list.total,
        is_all,
        may_manage: view.privileges.manage_access_tokens,
        reason: reason(context, view.privileges.generate_access_tokens, &view.scopes),
        name: fields.text("name").to_owned(),
        // Sent before: the owner has been told so.
        key: fields.key(&context.state.entropy, problem.is_some_and(|problem| problem.code == Code::Conflict))?,
        confirm_with: step_up::issuer(context, owner),
        days: fields.get("expiresInDays").unwrap_or(USUAL_DAYS).to_owned(),
        scopes: Scope::ALL.map(|scope| (scope, ticked.contains(&scope.as_str()))).to_vec(),
        previous: (list.offset > 0).then(|| at(list.offset.saturating_sub(list.limit))),
        next: (shown < list.total).then(|| at(shown)),
        tokens: list.items.into_iter().map(|view| TokenRow::new(view, own)).collect(),
    };
    render(status(problem), &tokens)
}

/// Why the caller cannot generate tokens.
fn reason(context: &RequestContext, may_generate: bool, scopes: &[Scope]) -> Option<String> {
    if !context.state.authn.methods().access_tokens {
        return Some("Token based authentication is disabled.".to_owned());
    }
    if !may_generate {
        return Some(
            "You lack the right to generate personalaccesstokens.daypass.dev (Generate Personal Access \
                     Tokens)."
                .to_owned(),
        );
    }
    let lacks = !scopes.contains(&Scope::TokensWrite);
    lacks.then(|| "You signed in with an access token that lacks the scope tokens:write.".to_owned())
}

impl TokenRow {
    fn new(view: TokenView, own: &str) -> Self {
        Self {
            created: When(view.created_at),
            end: When(view.expires_at),
            last_used: view.last_used_at.map(When),
            is_own: view.owner.username == own,
            replaces: view.digits.clone(),
            view,
        }
    }

    fn is_suspended(&self) -> bool {
        self.view.status == TokenStatus::Suspended
    }
}
