//! Daypass's chart in a control plane, as helm installs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::components::Component;
use crate::control_plane::{ControlPlane, Shutdown};
use crate::process::{POLL, output};
use crate::state::write_private;
use crate::tools::Tools;

/// Name and namespace of the release, and name of its ServiceAccount.
pub const RELEASE: &str = "daypass";

/// The controller manager counts quotas within seconds of its start.
const COUNT_TIMEOUT: Duration = Duration::from_secs(60);

/// Daypass's chart.
#[derive(Debug, Clone)]
pub struct Chart {
    helm: PathBuf,
    path: PathBuf,
}

impl Chart {
    /// The chart in this folder; builds helm where that has not been done.
    ///
    /// # Errors
    /// When helm cannot be built.
    pub fn new(path: &Path) -> Result<Self> {
        Ok(Self { helm: Tools::helm()?, path: path.to_owned() })
    }

    /// The folder of the program helm.
    pub(crate) fn helm_dir(&self) -> Option<&Path> {
        self.helm.parent()
    }

    /// A helm command against this control plane, with no files outside of its state folder.
    pub fn helm(&self, plane: &ControlPlane) -> Command {
        let mut helm = plane.command(&self.helm);
        helm.env("KUBECONFIG", plane.kubeconfig());
        for folder in ["CACHE", "CONFIG", "DATA"] {
            helm.env(format!("HELM_{folder}_HOME"), plane.state_dir().join("helm"));
        }
        helm
    }

    /// Installs the release, or changes it to these values.
    ///
    /// # Errors
    /// When helm refuses; its message is in the error.
    pub fn install(&self, plane: &ControlPlane, values: &Value) -> Result<()> {
        let file = plane.state_dir().join("values.json");
        write_private(&file, &serde_json::to_string_pretty(values)?)?;
        let mut helm = self.helm(plane);
        helm.args(["upgrade", "--install", RELEASE]).arg(&self.path);
        helm.args(["-n", RELEASE, "--create-namespace", "-f"]).arg(file);
        output(&mut helm).context("the chart could not be installed")?;
        // It finds a new CRD within half a minute, and counts a quota of its objects some minutes later; when it starts, at once.
        plane.stop_component(Component::ControllerManager, Shutdown::Graceful)?;
        plane.start_component(Component::ControllerManager)?;
        wait_counted(plane)
    }

    /// The manifests of some of the chart's templates, or of all where none is named; without those of `helm test`.
    ///
    /// # Errors
    /// When helm refuses the values; its message is in the error.
    pub fn render(&self, plane: &ControlPlane, values: &Value, templates: &[&str]) -> Result<String> {
        let mut helm = self.template(plane, values)?;
        helm.arg("--skip-tests");
        for template in templates {
            helm.args(["--show-only", template]);
        }
        output(&mut helm)
    }

    /// What `helm test` makes.
    ///
    /// # Errors
    /// When helm refuses the values; its message is in the error.
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

    /// A kubeconfig with the rights that the chart gives to Daypass, and no others.
    ///
    /// # Errors
    /// When the token cannot be had or the file cannot be written.
    pub fn write_kubeconfig(&self, plane: &ControlPlane, file: &Path) -> Result<()> {
        let token = output(plane.kubectl().args(["create", "token", RELEASE, "-n", RELEASE, "--duration=720h"]))?;
        plane.write_token_kubeconfig(file, token.trim())
    }
}

/// Until a quota is counted, everything that it limits is refused.
fn wait_counted(plane: &ControlPlane) -> Result<()> {
    let used = "{range .items[*]}{.metadata.namespace}={.status.used.count/members\\.daypass\\.dev}{\"\\n\"}{end}";
    let deadline = Instant::now() + COUNT_TIMEOUT;
    loop {
        let quotas = output(plane.kubectl().args(["get", "resourcequotas", "-A", "-o", &format!("jsonpath={used}")]))?;
        match quotas.lines().find(|line| line.ends_with('=')) {
            None => return Ok(()),
            Some(quota) if Instant::now() >= deadline => {
                bail!("the quota in {quota} was not counted within {COUNT_TIMEOUT:?}")
            }
            Some(_) => thread::sleep(POLL),
        }
    }
}

/// Different values are written to different files, so that renders may run side by side.
fn file_suffix(values: &Value) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    values.to_string().hash(&mut hasher);
    hasher.finish()
}
