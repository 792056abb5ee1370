//! `make env`: what a shell needs to work with a running `make run`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process::output;
use crate::state::{holder, write_private};

/// In the state folder while Daypass runs. Holds no secret.
const FILE: &str = "run.json";

/// What a running `make run` says about itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Process that wrote this; the file counts only while that one holds the state folder.
    pub(crate) holder: u32,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) kubectl_cache: PathBuf,
    pub(crate) url: String,
    pub(crate) ca: PathBuf,
    pub(crate) data_plane: String,
    pub(crate) admin_url: String,
    pub(crate) daypass_pid: u32,
    /// Folders of kubectl, helm and daypass.
    pub(crate) path: Vec<PathBuf>,
}

impl Running {
    pub(crate) fn write(&self, state_dir: &Path) -> Result<()> {
        // Renamed into place: a reader sees all of it or nothing.
        let draft = state_dir.join("run.json.new");
        write_private(&draft, &serde_json::to_string_pretty(self)?)?;
        Ok(fs::rename(draft, state_dir.join(FILE))?)
    }

    pub(crate) fn remove(state_dir: &Path) {
        let _ = fs::remove_file(state_dir.join(FILE));
    }

    fn read(state_dir: &Path) -> Result<Self> {
        let Some(pid) = holder(state_dir)? else {
            bail!("nothing is running in {}; start it with `make run`", state_dir.display());
        };
        let starting = || format!("process {pid} holds {}, but Daypass is not ready there (yet)", state_dir.display());
        let text = fs::read_to_string(state_dir.join(FILE)).with_context(starting)?;
        let running: Self = serde_json::from_str(&text)?;
        if running.holder != pid {
            bail!(starting());
        }
        Ok(running)
    }

    /// A new token of the ServiceAccount that may manage members, good for a day.
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

/// Prints shell exports for the `make run` whose state folder is `state_dir`.
///
/// # Errors
/// When none is running there.
pub fn print_env(state_dir: &Path) -> Result<()> {
    let running = Running::read(state_dir)?;
    let text = exports(&running, &running.token()?, &state_dir.canonicalize()?);
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn exports(running: &Running, token: &str, state_dir: &Path) -> String {
    let shown = |path: &Path| path.display().to_string();
    let variables = [
        ("KUBECONFIG", shown(&running.kubeconfig)),
        ("KUBECACHEDIR", shown(&running.kubectl_cache)),
        ("DAYPASS_URL", running.url.clone()),
        ("DAYPASS_CA", shown(&running.ca)),
        ("DAYPASS_TOKEN", token.to_owned()),
        ("DAYPASS_DATA_PLANE", running.data_plane.clone()),
        ("DAYPASS_ADMIN_URL", running.admin_url.clone()),
        ("DAYPASS_PID", running.daypass_pid.to_string()),
        ("DAYPASS_STATE", shown(state_dir)),
    ];
    let mut text: String = variables.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect();
    let path: Vec<String> = running.path.iter().map(|dir| quote(&shown(dir))).collect();
    text.push_str(&format!("export PATH={}:\"$PATH\"\n", path.join(":")));
    text
}

/// Quotes for a POSIX shell: within single quotes only the single quote itself is special.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() -> Result<()> {
        for value in ["plain", "two words", "it's $HOME `x` \"y\" \\ !", "", "a\nb"] {
            let read = output(Command::new("sh").args(["-c", &format!("printf %s {}", quote(value))]))?;
            assert_eq!(read, value);
        }
        Ok(())
    }

    #[test]
    fn the_exports_are_what_a_shell_evaluates() -> Result<()> {
        let running = Running {
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
        let exports = exports(&running, "token", Path::new("/state dir"));
        let script = format!("{exports}echo \"$KUBECONFIG $DAYPASS_PID $DAYPASS_STATE $PATH\"");
        let said = output(Command::new("/bin/sh").args(["-c", &script]).env("PATH", "/bin"))?;
        assert_eq!(said, "/state dir/admin.kubeconfig 42 /state dir /tools/k:/tools/h:/bin\n");
        Ok(())
    }

    #[test]
    fn an_empty_state_folder_has_no_environment() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let error = print_env(dir.path());
        assert!(error.is_err_and(|error| error.to_string().contains("make run")));
        Ok(())
    }
}
