//! A real node beside a control plane: pods run, `kubectl exec` works, Services and their names too.
//!
//! Kubernetes' own programs and CoreDNS are built from Go modules; containerd, runc and the CNI plugins are the machine's.

mod cgroups;
mod config;
mod requirements;
mod sandbox;

pub use config::{API_NAME, DAYPASS_NAME};
pub use requirements::missing;

pub(crate) use config::API_HOSTS;
pub(crate) use sandbox::Sandbox;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::config::{NODE_ADDRESS, NODE_NAME, PAUSE_IMAGE, SERVICE_RANGE, SOCKET};
use crate::control_plane::ControlPlane;
use crate::kubeconfig::{self, Identity};
use crate::pki::{PairPem, Pki};
use crate::process::{POLL, Process, output};
use crate::state::write_private;
use crate::tools::NodeTools;

const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// The programs of one node. Dropped, they are killed; their pods end with the control plane's sandbox.
pub struct Node<'a> {
    plane: &'a ControlPlane,
    processes: Vec<Process>,
}

/// What the API server needs to be told so that a node can join it.
pub(crate) fn apiserver_args(pki: &Pki) -> Result<Vec<String>> {
    // Its user for calls to kubelet (logs, exec); kubelet asks the API server what it may do.
    let client = pki.files("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), &[])?;
    Ok(vec![
        "--bind-address=0.0.0.0".to_owned(),
        format!("--advertise-address={NODE_ADDRESS}"),
        "--endpoint-reconciler-type=lease".to_owned(),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        // Besides RBAC; given twice, such a flag is a list.
        "--authorization-mode=Node".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--kubelet-certificate-authority={}", pki.ca.cert.display()),
        format!("--kubelet-client-certificate={}", client.cert.display()),
        format!("--kubelet-client-key={}", client.key.display()),
    ])
}

impl<'a> Node<'a> {
    /// Builds the programs of a node that are not there yet, which takes minutes, once.
    ///
    /// # Errors
    /// When they cannot be built.
    pub fn prepare() -> Result<()> {
        NodeTools::find_or_build().map(drop)
    }

    /// Starts a node beside a control plane that was started with [`Options::sandbox`](crate::Options), and returns when pods can run.
    ///
    /// # Errors
    /// When a program does not start or ends, or the node is not ready in time.
    pub fn start(plane: &'a ControlPlane) -> Result<Self> {
        let tools = NodeTools::find_or_build()?;
        let sandbox = plane.sandbox().context("a node needs a control plane with a sandbox")?;
        let mut node = Self { plane, processes: Vec::new() };
        node.configure(sandbox)?;
        let dir = sandbox.dir();

        node.run("containerd", Path::new("containerd"), &["--config", &text(&dir.join("containerd.toml"))])?;
        node.wait("containerd answers", || {
            output(plane.command(Path::new("ctr")).args(["--address", SOCKET, "version"])).is_ok()
        })?;
        node.load_pause(&tools.own.join("pause"))?;

        node.run("coredns", &tools.own.join("coredns"), &["-conf", &text(&dir.join("Corefile"))])?;
        let config = |name: &str| format!("--config={}", dir.join(name).display());
        let kubeconfig = format!("--kubeconfig={}", dir.join("kubelet.kubeconfig").display());
        let (name, address) = (format!("--hostname-override={NODE_NAME}"), format!("--node-ip={NODE_ADDRESS}"));
        let kubelet = [config("kubelet.yaml"), kubeconfig, name, address];
        node.run("kubelet", &tools.kubernetes.join("kubelet"), &kubelet)?;
        node.run("kube-proxy", &tools.kubernetes.join("kube-proxy"), &[config("kube-proxy.yaml")])?;
        let scheduler = dir.join("scheduler.kubeconfig");
        let scheduler = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={}", scheduler.display()));
        let scheduler = [&scheduler[..], &["--leader-elect=false".to_owned()]].concat();
        node.run("kube-scheduler", &tools.kubernetes.join("kube-scheduler"), &scheduler)?;

        let condition = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let is_ready = || {
            output(plane.kubectl().args(["get", "node", NODE_NAME, "-o", condition])).is_ok_and(|said| said == "True")
        };
        node.wait("the node is ready", is_ready)?;
        Ok(node)
    }

    /// Makes an image of an OCI archive available to pods, under the name that the archive gives it.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let mut ctr = self.plane.command(Path::new("ctr"));
        ctr.args(["--address", SOCKET, "--namespace", "k8s.io", "images", "import"]).arg(archive);
        output(&mut ctr).map(drop)
    }

    /// Fails, with the end of its log, when a program of the node has ended.
    ///
    /// # Errors
    /// That.
    pub fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::ensure_alive)
    }

    fn run(&mut self, name: &str, program: &Path, args: &[impl AsRef<std::ffi::OsStr>]) -> Result<()> {
        let mut command = self.plane.command(program);
        command.args(args);
        let process = Process::start(name, command, &self.plane.log(name), None)?;
        self.processes.push(process);
        Ok(())
    }

    fn wait(&mut self, what: &str, mut poll: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !poll() {
            self.check()?;
            if self.plane.interrupted() {
                bail!("interrupted while the node was starting");
            }
            if Instant::now() >= deadline {
                bail!("not within {READY_TIMEOUT:?}: {what}; see {}", self.plane.state_dir().join("logs").display());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn configure(&self, sandbox: &Sandbox) -> Result<()> {
        let (dir, setup) = (sandbox.dir(), self.plane.setup());
        let pki = &setup.pki;
        let kubeconfig = |name: &str, user: &PairPem| -> Result<PathBuf> {
            let file = dir.join(format!("{name}.kubeconfig"));
            kubeconfig::write(&file, &setup.server_url(), &pki.ca_pem, &Identity::Certificate(user))?;
            Ok(file)
        };
        let node_user = format!("system:node:{NODE_NAME}");
        kubeconfig("kubelet", &pki.user(&node_user, Some("system:nodes"))?)?;
        kubeconfig("scheduler", &pki.user("system:kube-scheduler", None)?)?;
        let proxy = kubeconfig("kube-proxy", &pki.user("system:kube-proxy", None)?)?;
        let serving = pki.files("kubelet", NODE_NAME, None, &[NODE_NAME, NODE_ADDRESS])?;
        let cni = dir.join("cni");
        fs::write(cni.join("10-pods.conflist"), config::cni())?;
        fs::write(dir.join("containerd.toml"), config::containerd(&requirements::cni_programs(), &cni))?;
        let root = sandbox.cgroups().root();
        fs::write(dir.join("kubelet.yaml"), config::kubelet(&root, &pki.ca.cert, &serving.cert, &serving.key))?;
        fs::write(dir.join("kube-proxy.yaml"), config::kube_proxy(&proxy))?;
        // CoreDNS reads every Service: the administrator may.
        Ok(fs::write(dir.join("Corefile"), config::corefile(&self.plane.kubeconfig()))?)
    }

    /// The image that holds each pod's namespaces, made here: there is no registry to pull one from.
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
