//! Adds a real node to a control plane: pods run, and `kubectl exec`, Services and DNS work.
//!
//! Kubernetes' programs and CoreDNS are built from Go modules. containerd, runc and the CNI plugins are the machine's.

mod config;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::config::{PAUSE_IMAGE, SOCKET};
use crate::control_plane::ControlPlane;
use crate::kubeconfig::{self, Identity};
use crate::pki::CertPem;
use crate::process::{KUBECTL_POLL, Process, output};
use crate::sandbox::{NODE_ADDRESS, NODE_NAME, Sandbox, cni_programs};
use crate::state::write_private;
use crate::tools::NodeTools;

const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// A running node. Dropping it kills its programs. Its pods end with the control plane's sandbox.
pub struct Node<'a> {
    plane: &'a ControlPlane,
    processes: Vec<Process>,
}

impl<'a> Node<'a> {
    /// Builds the node's programs, unless they are in the cache. The first build takes minutes.
    ///
    /// # Errors
    /// When a build fails.
    pub fn prepare() -> Result<()> {
        NodeTools::find_or_build().map(drop)
    }

    /// Starts a node of a control plane that has [`Options::sandbox`](crate::Options), and returns when pods can run.
    ///
    /// # Errors
    /// When a program does not start or dies, and when the node is not ready within three minutes.
    pub fn start(plane: &'a ControlPlane) -> Result<Self> {
        let tools = NodeTools::find_or_build()?;
        let sandbox = plane.sandbox().context("a node needs a control plane with a sandbox")?;
        let mut node = Self { plane, processes: Vec::new() };
        node.configure(sandbox)?;
        let dir = sandbox.dir();

        node.start_program("containerd", Path::new("containerd"), &["--config", &text(&dir.join("containerd.toml"))])?;
        node.wait_ready("containerd", || {
            output(plane.command(Path::new("ctr")).args(["--address", SOCKET, "version"])).is_ok()
        })?;
        node.load_pause(&tools.own.join("pause"))?;

        node.start_program("coredns", &tools.own.join("coredns"), &["-conf", &text(&dir.join("Corefile"))])?;
        let config = |name: &str| format!("--config={}", dir.join(name).display());
        let kubeconfig = format!("--kubeconfig={}", dir.join("kubelet.kubeconfig").display());
        let (name, address) = (format!("--hostname-override={NODE_NAME}"), format!("--node-ip={NODE_ADDRESS}"));
        let kubelet = [config("kubelet.yaml"), kubeconfig, name, address];
        node.start_program("kubelet", &tools.kubernetes.join("kubelet"), &kubelet)?;
        node.start_program("kube-proxy", &tools.kubernetes.join("kube-proxy"), &[config("kube-proxy.yaml")])?;
        let scheduler = dir.join("scheduler.kubeconfig");
        let scheduler = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={}", scheduler.display()));
        let scheduler = [&scheduler[..], &["--leader-elect=false".to_owned()]].concat();
        node.start_program("kube-scheduler", &tools.kubernetes.join("kube-scheduler"), &scheduler)?;

        let condition = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let is_ready = || {
            output(plane.kubectl().args(["get", "node", NODE_NAME, "-o", condition]))
                .is_ok_and(|status| status == "True")
        };
        node.wait_ready("the node", is_ready)?;
        Ok(node)
    }

    /// Loads an image from an OCI archive for the pods, under the name that it has in the archive.
    ///
    /// # Errors
    /// When containerd cannot import it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let mut ctr = self.plane.command(Path::new("ctr"));
        ctr.args(["--address", SOCKET, "--namespace", "k8s.io", "images", "import"]).arg(archive);
        output(&mut ctr).map(drop)
    }

    /// Checks that all of the node's programs still run.
    ///
    /// # Errors
    /// When one has died. The error contains the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::ensure_alive)
    }

    fn start_program(&mut self, name: &str, program: &Path, args: &[impl AsRef<std::ffi::OsStr>]) -> Result<()> {
        let mut command = self.plane.command(program);
        command.args(args);
        let process = Process::start(name, command, &self.plane.log(name), None)?;
        self.processes.push(process);
        Ok(())
    }

    fn wait_ready(&mut self, what: &str, mut is_ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !is_ready() {
            self.check()?;
            if self.plane.interrupted() {
                bail!("interrupted while the node was starting");
            }
            if Instant::now() >= deadline {
                let logs = self.plane.state_dir().join("logs");
                bail!("{what} was not ready within {READY_TIMEOUT:?}; see {}", logs.display());
            }
            thread::sleep(KUBECTL_POLL);
        }
        Ok(())
    }

    /// Writes the kubeconfigs and configuration files of the node's programs.
    fn configure(&self, sandbox: &Sandbox) -> Result<()> {
        let (dir, plane) = (sandbox.dir(), self.plane.config());
        let pki = &plane.pki;
        let kubeconfig = |name: &str, user: &CertPem| -> Result<PathBuf> {
            let file = dir.join(format!("{name}.kubeconfig"));
            kubeconfig::write(&file, &plane.server_url(), &pki.ca_pem, &Identity::Certificate(user))?;
            Ok(file)
        };
        let node_user = format!("system:node:{NODE_NAME}");
        kubeconfig("kubelet", &pki.issue(&node_user, Some("system:nodes"))?)?;
        kubeconfig("scheduler", &pki.issue("system:kube-scheduler", None)?)?;
        let proxy = kubeconfig("kube-proxy", &pki.issue("system:kube-proxy", None)?)?;
        let serving = pki.write_cert("kubelet", NODE_NAME, None, &[NODE_NAME, NODE_ADDRESS])?;
        let cni = dir.join("cni");
        fs::write(cni.join("10-pods.conflist"), config::cni())?;
        fs::write(dir.join("containerd.toml"), config::containerd(&cni_programs(), &cni))?;
        let root = sandbox.cgroups().root();
        fs::write(dir.join("kubelet.yaml"), config::kubelet(&root, &pki.ca.cert, &serving.cert, &serving.key))?;
        fs::write(dir.join("kube-proxy.yaml"), config::kube_proxy(&proxy))?;
        // The administrator's kubeconfig, since CoreDNS reads every Service.
        Ok(fs::write(dir.join("Corefile"), config::corefile(&self.plane.kubeconfig()))?)
    }

    /// Builds and loads the pause image, which holds each pod's namespaces. There is no registry to pull it from.
    fn load_pause(&self, pause: &Path) -> Result<()> {
        let context = self.plane.state_dir().join("node/pause");
        fs::create_dir(&context)?;
        fs::copy(pause, context.join("pause"))?;
        write_private(
            &context.join("Containerfile"),
            "FROM scratch\nCOPY pause /pause\nUSER 65532:65532\nENTRYPOINT [\"/pause\"]\n",
        )?;
        let buildah = || {
            let mut command = Command::new("buildah");
            command.args(["--storage-driver", "vfs", "--root"]).arg(context.join("storage"));
            command.arg("--runroot").arg(context.join("run"));
            command
        };
        output(buildah().args(["bud", "--quiet", "--isolation", "chroot", "--tag", PAUSE_IMAGE]).arg(&context))?;
        let archive = context.join("pause.tar");
        let to = format!("oci-archive:{}:{PAUSE_IMAGE}", archive.display());
        output(buildah().args(["push", "--quiet", PAUSE_IMAGE, &to]))?;
        self.load_image(&archive)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
