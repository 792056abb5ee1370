//! Installs and renders Daypass's chart with helm.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::components::Component;
use crate::control_plane::{ControlPlane, Shutdown};
use crate::process::{KUBECTL_POLL, output};
use crate::state::write_private;
use crate::tools::Tools;

/// The release's name, its namespace, and the name of its ServiceAccount.
pub const RELEASE: &str = "daypass";

/// The controller manager counts quotas within seconds after its start, which takes long on a slow machine.
const COUNT_TIMEOUT: Duration = Duration::from_secs(300);

/// Daypass's chart.
#[derive(Debug, Clone)]
pub struct Chart {
    helm: PathBuf,
    path: PathBuf,
}

impl Chart {
    /// The chart in this folder. Builds helm unless it is in the cache.
    ///
    /// # Errors
    /// When helm cannot be built.
    pub fn new(path: &Path) -> Result<Self> {
        Ok(Self { helm: Tools::helm()?, path: path.to_owned() })
    }

    /// The folder of helm, for `PATH`.
    pub(crate) fn helm_dir(&self) -> Option<&Path> {
        self.helm.parent()
    }

    /// A helm command for this control plane. All its files are in the state folder.
    pub fn helm(&self, plane: &ControlPlane) -> Command {
        let mut helm = plane.command(&self.helm);
        helm.env("KUBECONFIG", plane.kubeconfig());
        for folder in ["CACHE", "CONFIG", "DATA"] {
            helm.env(format!("HELM_{folder}_HOME"), plane.state_dir().join("helm"));
        }
        helm
    }

    /// Installs or upgrades the release, and waits until the controller manager has counted its quotas.
    ///
    /// # Errors
    /// When helm fails. The error contains its message.
    pub fn install(&self, plane: &ControlPlane, values: &Value) -> Result<()> {
        let file = plane.state_dir().join("values.json");
        write_private(&file, &serde_json::to_string_pretty(values)?)?;
        let mut helm = self.helm(plane);
        helm.args(["upgrade", "--install", RELEASE]).arg(&self.path);
        helm.args(["-n", RELEASE, "--create-namespace", "-f"]).arg(file);
        output(&mut helm).context("cannot install the chart")?;
        // A running controller manager finds a new CRD after half a minute, and counts a quota of its objects minutes
        // later. A fresh one does both at once.
        plane.stop_component(Component::ControllerManager, Shutdown::Graceful)?;
        plane.start_component(Component::ControllerManager)?;
        wait_for_quotas(plane)
    }

    /// Renders these templates of the chart, or all if `templates` is empty. Leaves out those of `helm test`.
    ///
    /// # Errors
    /// When helm rejects the values. The error contains its message.
    pub fn render(&self, plane: &ControlPlane, values: &Value, templates: &[&str]) -> Result<String> {
        let mut helm = self.template(plane, values)?;
        helm.arg("--skip-tests");
        for template in templates {
            helm.args(["--show-only", template]);
        }
        output(&mut helm)
    }

    /// Renders the templates of `helm test`.
    ///
    /// # Errors
    /// When helm rejects the values. The error contains its message.
    pub fn render_tests(&self, plane: &ControlPlane, values: &Value) -> Result<String> {
        output(self.template(plane, values)?.args(["--show-only", "templates/tests/*"]))
    }

    fn template(&self, plane: &ControlPlane, values: &Value) -> Result<Command> {
        let file = plane.state_dir().join(format!("values-{:x}.json", file_suffix(values)));
        write_private(&file, &serde_json::to_string(values)?)?;
        let mut helm = self.helm(plane);
        helm.args(["template", RELEASE]).arg(&self.path).args(["-n", RELEASE, "-f"]).arg(file);
        Ok(helm)
    }

    /// Writes a kubeconfig of Daypass's ServiceAccount, so that Daypass has exactly the chart's permissions.
    ///
    /// # Errors
    /// When the API server issues no token or the file cannot be written.
    pub fn write_kubeconfig(&self, plane: &ControlPlane, file: &Path) -> Result<()> {
        let token = output(plane.kubectl().args(["create", "token", RELEASE, "-n", RELEASE, "--duration=720h"]))?;
        plane.write_token_kubeconfig(file, token.trim())
    }
}

/// Waits until all quotas are counted. Until then, the API server refuses all objects that they limit.
fn wait_for_quotas(plane: &ControlPlane) -> Result<()> {
    // Others' quotas count other objects.
    let used = "{range .items[?(@.metadata.name==\"daypass\")]}{.metadata.namespace}=\
                {.status.used.count/members\\.daypass\\.dev}{\"\\n\"}{end}";
    let deadline = Instant::now() + COUNT_TIMEOUT;
    loop {
        let quotas = output(plane.kubectl().args(["get", "resourcequotas", "-A", "-o", &format!("jsonpath={used}")]))?;
        match quotas.lines().find(|line| line.ends_with('=')) {
            None => return Ok(()),
            Some(quota) if Instant::now() >= deadline => {
                bail!("the quota in {} was not counted within {COUNT_TIMEOUT:?}", quota.trim_end_matches('='))
            }
            Some(_) => thread::sleep(KUBECTL_POLL),
        }
    }
}

/// A suffix for the file with these values, so that renders with different values can run side by side.
fn file_suffix(values: &Value) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    values.to_string().hash(&mut hasher);
    hasher.finish()
}
