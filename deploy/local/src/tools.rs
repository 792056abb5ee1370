//! Finds the programs of a control plane, and builds them into the cache if needed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::go::GoModule;

/// The newest supported minor version, and the folder that other versions copy.
const DEFAULT_KUBERNETES: &str = "v1.37";
const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];

/// The programs of one Kubernetes minor version.
#[derive(Debug, Clone)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// Returns the programs in `KUBEBUILDER_ASSETS` if it has all four, else those of `KUBERNETES_VERSION` (the
    /// newest by default), and builds them unless they are in the cache. It never uses programs in `PATH`, since those
    /// can have any version.
    ///
    /// # Errors
    /// When the version is unknown or the build fails.
    pub fn find_or_build() -> Result<Self> {
        if let Some(dir) = std::env::var_os("KUBEBUILDER_ASSETS").filter(|dir| !dir.is_empty()) {
            let dir = PathBuf::from(dir);
            let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| !dir.join(name).is_file()).collect();
            if missing.is_empty() {
                return Ok(Self { dir: dir.canonicalize()? });
            }
            eprintln!("ignoring KUBEBUILDER_ASSETS ({}): it has no {}", dir.display(), missing.join(", "));
        }
        let (dir, version) = kubernetes_module()?;
        Ok(Self { dir: kubernetes(dir, &version)? })
    }

    /// The programs' folder, for `PATH`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of kubectl.
    pub fn kubectl(&self) -> PathBuf {
        self.dir.join("kubectl")
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns the path of helm: `DAYPASS_HELM` if it is set, else the one in the cache. Builds it if the cache has
    /// none, which takes about two minutes.
    ///
    /// Helm needs a newer Go than Kubernetes. Call this before [`find_or_build`](Self::find_or_build), so that an old
    /// Go fails before minutes of building.
    ///
    /// # Errors
    /// When `DAYPASS_HELM` does not exist or the build fails.
    pub fn helm() -> Result<PathBuf> {
        if let Some(helm) = std::env::var_os("DAYPASS_HELM").filter(|path| !path.is_empty()) {
            let helm = PathBuf::from(helm);
            return helm.canonicalize().with_context(|| format!("DAYPASS_HELM: no program at {}", helm.display()));
        }
        let dir = sources().join("helm");
        let version = GoModule::required_version(&dir, "helm.sh/helm/v4")?;
        let ldflags = format!("-s -w -X helm.sh/helm/v4/internal/version.version={version}");
        let module = GoModule { dir, packages: &["helm.sh/helm/v4/cmd/helm"], ldflags };
        Ok(cached("helm", &version, &module)?.join("helm"))
    }
}

/// The programs of a node.
#[derive(Debug, Clone)]
pub(crate) struct NodeTools {
    /// kubelet, kube-proxy and kube-scheduler.
    pub(crate) kubernetes: PathBuf,
    /// coredns and pause.
    pub(crate) own: PathBuf,
}

impl NodeTools {
    /// Returns the programs of `KUBERNETES_VERSION` (the newest by default), and builds them unless they are in the
    /// cache. The oldest folders have none.
    pub(crate) fn find_or_build() -> Result<Self> {
        let (dir, version) = kubernetes_module()?;
        if !fs::read_to_string(dir.join("imports.go"))?.contains("cmd/kubelet") {
            bail!("no node of Kubernetes {version}: {} has a control plane only", dir.display());
        }
        let packages = &[
            "k8s.io/kubernetes/cmd/kubelet",
            "k8s.io/kubernetes/cmd/kube-proxy",
            "k8s.io/kubernetes/cmd/kube-scheduler",
        ];
        let ldflags = kubernetes_ldflags(&version);
        let kubernetes = cached("kubernetes-node", &version, &GoModule { dir, packages, ldflags })?;
        let dir = sources().join("node");
        let version = GoModule::required_version(&dir, "github.com/coredns/coredns")?;
        let module = GoModule { dir, packages: &["./coredns", "./pause"], ldflags: "-s -w".to_owned() };
        Ok(Self { kubernetes, own: cached("coredns", &version, &module)? })
    }
}

/// The folder of this crate, which has the Go modules too.
fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the chosen Kubernetes version's module, and that version in full.
fn kubernetes_module() -> Result<(PathBuf, String)> {
    let minor = std::env::var("KUBERNETES_VERSION").unwrap_or_default();
    module_of(if minor.is_empty() { DEFAULT_KUBERNETES } else { &minor })
}

/// The module for a minor version, with or without `v`.
fn module_of(minor: &str) -> Result<(PathBuf, String)> {
    let all = sources().join("kubernetes");
    let dir = all.join(format!("v{}", minor.trim_start_matches('v')));
    if !dir.join("go.mod").is_file() {
        bail!("unknown Kubernetes version {minor}; choose one of: {}", minors(&all)?.join(", "));
    }
    let version = GoModule::required_version(&dir, "k8s.io/kubernetes")?;
    Ok((dir, version))
}

fn kubernetes(dir: PathBuf, version: &str) -> Result<PathBuf> {
    let packages = &[
        "go.etcd.io/etcd/server/v3",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kubectl",
    ];
    let ldflags = kubernetes_ldflags(version);
    cached("kubernetes", version, &GoModule { dir, packages, ldflags })
}

/// The version flags for the linker, as in Kubernetes' own build (hack/lib/version.sh), but without the commit.
fn kubernetes_ldflags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let stamp = |package: &str| {
        format!(" -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}")
    };
    format!("-s -w{}{}", stamp("k8s.io/component-base/version"), stamp("k8s.io/client-go/pkg/version"))
}

/// Returns the cache folder with the module's programs, and builds them if it does not exist. Only one process builds
/// at a time.
fn cached(name: &str, version: &str, module: &GoModule) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let key = format!("{name}-{version}-{}", hash(&module.inputs()?));
    let dir = cache.join(&key);
    if dir.is_dir() {
        return Ok(dir);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = lock(&cache.join(format!(".{name}.lock")))?;
    if dir.is_dir() {
        return Ok(dir);
    }
    // Built elsewhere and renamed, so that the folder is complete if it exists, even after a build was killed.
    let building = cache.join(format!(".building-{name}"));
    if building.exists() {
        fs::remove_dir_all(&building)?;
    }
    fs::create_dir(&building)?;
    module.build(&format!("{name} {version}"), &building)?;
    let etcd = building.join("server");
    if etcd.exists() {
        // Go names a program after the last part of its import path.
        fs::rename(etcd, building.join("etcd"))?;
    }
    fs::rename(&building, &dir)?;
    Ok(dir)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another process that is building the same");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(file)
}

/// `$XDG_CACHE_HOME/daypass/tools`, or `~/.cache/daypass/tools` without that variable.
fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(cache.context("no cache folder: set HOME or XDG_CACHE_HOME")?.join("daypass/tools"))
}

/// Hashes the parts with their lengths, so that moving text from one part to the next changes the hash.
fn hash(parts: &[String]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The minor versions that have a folder, such as `v1.34`.
fn minors(all: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(all)? {
        let entry = entry?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_all_parts_and_their_boundaries() {
        let of = |parts: &[&str]| hash(&parts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "b"]), of(&["a", "c"]));
        assert_ne!(of(&["a", "b"]), of(&["ab", ""]));
        assert_eq!(of(&[]).len(), 12);
    }

    #[test]
    fn linker_flags_contain_full_version_major_and_minor() {
        let flags = kubernetes_ldflags("v1.34.4");
        assert!(
            flags.contains("version.gitVersion=v1.34.4")
                && flags.contains("gitMajor=1 ")
                && flags.contains("gitMinor=34")
        );
    }

    #[test]
    fn error_for_an_unknown_kubernetes_version_lists_the_known_ones() {
        let error = module_of("v0.1").map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("choose one of: v1.30, v1.31") && !error.contains("add.sh")));
    }

    #[test]
    fn every_folder_requires_a_release_of_its_minor_version() {
        for minor in minors(&sources().join("kubernetes")).unwrap() {
            let (dir, version) = module_of(minor.trim_start_matches('v')).unwrap();
            assert!(version.starts_with(&format!("{minor}.")) && dir.ends_with(&minor), "{minor}: {version}");
        }
        assert!(module_of(DEFAULT_KUBERNETES).is_ok());
    }
}
