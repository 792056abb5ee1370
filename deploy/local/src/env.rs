//! `make env`: prints shell exports for a running `make run`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process::output;
use crate::state::{holder, write_private};

/// Exists in the state folder while Daypass runs. Contains no secret.
const FILE: &str = "run.json";

/// The content of `run.json`, which `make run` writes for `make env`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunInfo {
    /// The process that wrote this file. The file is valid only while that process holds the state folder.
    pub(crate) holder: u32,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) kubectl_cache: PathBuf,
    pub(crate) url: String,
    pub(crate) ca: PathBuf,
    pub(crate) data_plane: String,
    pub(crate) admin_url: String,
    pub(crate) daypass_pid: u32,
    /// The folders of kubectl, helm and daypass.
    pub(crate) path: Vec<PathBuf>,
}

impl RunInfo {
    pub(crate) fn write(&self, state_dir: &Path) -> Result<()> {
        // Renamed into place, so that no reader sees half of it.
        let temporary = state_dir.join("run.json.new");
        write_private(&temporary, &serde_json::to_string_pretty(self)?)?;
        Ok(fs::rename(temporary, state_dir.join(FILE))?)
    }

    pub(crate) fn remove(state_dir: &Path) {
        let _ = fs::remove_file(state_dir.join(FILE));
    }

    fn read(state_dir: &Path) -> Result<Self> {
        let Some(pid) = holder(state_dir)? else {
            bail!("nothing is running in {}; start it with `make run`", state_dir.display());
        };
        let starting = || format!("process {pid} uses {}, but Daypass is not ready there yet", state_dir.display());
        let text = fs::read_to_string(state_dir.join(FILE)).with_context(starting)?;
        let info: Self = serde_json::from_str(&text)?;
        if info.holder != pid {
            bail!(starting());
        }
        Ok(info)
    }

    /// Requests a token for the ServiceAccount that may manage members. It is valid for a day.
    fn token(&self) -> Result<String> {
        let mut kubectl = Command::new("kubectl");
        if let Some(dir) = self.path.first() {
            kubectl = Command::new(dir.join("kubectl"));
        }
        kubectl.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", &self.kubectl_cache);
        kubectl.args(["create", "token", "data-plane-owner", "-n", "default", "--audience=daypass", "--duration=24h"]);
        Ok(output(&mut kubectl)?.trim().to_owned())
    }
}

/// Prints shell exports for the `make run` that uses `state_dir`.
///
/// # Errors
/// When none is running there or Daypass is not ready yet.
pub fn print_env(state_dir: &Path) -> Result<()> {
    let info = RunInfo::read(state_dir)?;
    let text = exports(&info, &info.token()?, &state_dir.canonicalize()?);
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn exports(info: &RunInfo, token: &str, state_dir: &Path) -> String {
    let display = |path: &Path| path.display().to_string();
    let variables = [
        ("KUBECONFIG", display(&info.kubeconfig)),
        ("KUBECACHEDIR", display(&info.kubectl_cache)),
        ("DAYPASS_URL", info.url.clone()),
        ("DAYPASS_CA", display(&info.ca)),
        ("DAYPASS_TOKEN", token.to_owned()),
        ("DAYPASS_DATA_PLANE", info.data_plane.clone()),
        ("DAYPASS_ADMIN_URL", info.admin_url.clone()),
        ("DAYPASS_PID", info.daypass_pid.to_string()),
        ("DAYPASS_STATE", display(state_dir)),
    ];
    let mut text: String = variables.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect();
    let path: Vec<String> = info.path.iter().map(|dir| quote(&display(dir))).collect();
    text.push_str(&format!("export PATH={}:\"$PATH\"\n", path.join(":")));
    text
}

/// Quotes a value for a POSIX shell. Within single quotes, only the single quote is special.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_restores_quoted_values() -> Result<()> {
        for value in ["plain", "two words", "it's $HOME `x` \"y\" \\ !", "", "a\nb"] {
            let read = output(Command::new("sh").args(["-c", &format!("printf %s {}", quote(value))]))?;
            assert_eq!(read, value);
        }
        Ok(())
    }

    #[test]
    fn shell_evaluates_the_exports() -> Result<()> {
        let info = RunInfo {
            holder: 1,
            kubeconfig: "/state dir/admin.kubeconfig".into(),
            kubectl_cache: "/state dir/kubectl-cache".into(),
            url: "https://127.0.0.1:8443".to_owned(),
            ca: "/state dir/daypass-ca.crt".into(),
            data_plane: "local".to_owned(),
            admin_url: "http://127.0.0.1:8080".to_owned(),
            daypass_pid: 42,
            path: vec!["/tools/k".into(), "/tools/h".into()],
        };
        let exports = exports(&info, "token", Path::new("/state dir"));
        let script = format!("{exports}echo \"$KUBECONFIG $DAYPASS_PID $DAYPASS_STATE $PATH\"");
        let printed = output(Command::new("/bin/sh").args(["-c", &script]).env("PATH", "/bin"))?;
        assert_eq!(printed, "/state dir/admin.kubeconfig 42 /state dir /tools/k:/tools/h:/bin\n");
        Ok(())
    }

    #[test]
    fn error_for_an_unused_state_folder_names_make_run() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let error = print_env(dir.path());
        assert!(error.is_err_and(|error| error.to_string().contains("make run")));
        Ok(())
    }
}
