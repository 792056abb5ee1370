//! The operations on members, one file each, and the types that they share.

mod create;
mod credentials;
mod delete;
mod get;
mod kubeconfig;
mod kubeconfigs;
mod list;
mod me;
mod role_view;
mod roles;
mod types;
mod update;

pub use create::CreatedMember;
pub use types::{Credentials, MemberState, MemberView};

pub(crate) use create::CreateMember;
pub(crate) use kubeconfig::get_kubeconfig;
pub(crate) use kubeconfigs::{KubeconfigMode, KubeconfigView};
pub(crate) use role_view::{RoleSummary, RuleView};
pub(crate) use roles::RoleView;
pub(crate) use types::credential_digits;
pub(crate) use update::UpdateMember;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::State;

pub(super) fn router() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(list::list_members, create::create_member))
        .routes(routes!(roles::list_roles))
        .routes(routes!(get::get_member, update::update_member, delete::delete_member))
        .routes(routes!(credentials::create_credentials))
        .routes(routes!(kubeconfig::get_kubeconfig))
        .routes(routes!(kubeconfigs::list_kubeconfigs))
        .routes(routes!(kubeconfigs::delete_kubeconfig))
        .routes(routes!(me::get_me, me::delete_me))
}
