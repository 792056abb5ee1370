//! "My access": what an engineer may do and until when, the kubeconfig, and ending it early.

use askama::Template;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::form::Fields;
use super::frame::{Frame, When, render};
use super::visitor::{Engineer, Posted};
use super::words::RoleInWords;
use super::{ROOT, sign_in};
use crate::api::authentication::CallerOrMember;
use crate::api::members::{KubeconfigMode, KubeconfigView, get_kubeconfig};
use crate::api::problem::Problem;
use crate::api::request_context::RequestContext;

#[derive(Template)]
#[template(path = "me.html")]
struct MyAccessPage {
    frame: Frame,
    username: Option<String>,
    role: Option<RoleInWords>,
    end: When,
    kubeconfigs: Vec<KubeconfigRow>,
    /// The name under which browsers save the kubeconfig.
    file: String,
}

/// A kubeconfig in a table.
pub(super) struct KubeconfigRow {
    pub(super) id: String,
    pub(super) is_direct: bool,
    pub(super) issued: When,
    pub(super) end: When,
    pub(super) last_used: Option<When>,
    pub(super) from: String,
}

impl KubeconfigRow {
    pub(super) fn new(view: KubeconfigView) -> Self {
        Self {
            is_direct: matches!(view.mode, KubeconfigMode::Direct),
            issued: When(view.issued_at),
            end: When(view.expires_at),
            last_used: view.last_used_at.map(When),
            from: view.from.unwrap_or_default(),
            id: view.jti,
        }
    }

    /// Enough of the id to tell a member's kubeconfigs apart.
    pub(super) fn short_id(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }
}

pub(super) async fn page(
    context: RequestContext,
    engineer: Engineer,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let member = &engineer.session.member;
    let me = context.me(member).await?;
    let kubeconfigs = context.kubeconfigs(member).await?;
    let fields = Fields::of_query(query.as_deref());
    let page = MyAccessPage {
        frame: engineer.frame(&context).with_notice(fields.text("notice")),
        username: me.username,
        role: me.role.as_ref().map(RoleInWords::new),
        end: When(member.expires_at()),
        kubeconfigs: kubeconfigs.into_iter().map(KubeconfigRow::new).collect(),
        file: context.state.settings.file_name(&member.id, "kubeconfig"),
    };
    render(StatusCode::OK, &page)
}

pub(super) async fn download(
    context: RequestContext,
    Posted { visitor, .. }: Posted<Engineer>,
) -> Result<Response, Problem> {
    get_kubeconfig(context, visitor.session).await
}

pub(super) async fn revoke_kubeconfig(
    context: RequestContext,
    Path(jti): Path<String>,
    Posted { visitor, .. }: Posted<Engineer>,
) -> Result<Response, Problem> {
    let id = visitor.session.member.id.to_string();
    let member = CallerOrMember::Member(Box::new(visitor.session));
    context.delete_kubeconfig(&member, &id, &jti).await?;
    Ok(Redirect::to(&format!("{ROOT}/me?notice=revoked")).into_response())
}

pub(super) async fn end(
    context: RequestContext,
    Posted { visitor, .. }: Posted<Engineer>,
) -> Result<Response, Problem> {
    context.end_me(&visitor.session).await?;
    Ok(sign_in::signed_out("ended"))
}
