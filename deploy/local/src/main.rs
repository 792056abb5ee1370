//! The command `daypass-local`, which `make run`, `make env`, `make stop` and `make tools` use.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use daypass_local::{
    ControlPlane, DEFAULT_STATE, Node, Options, RunOptions, Tools, missing, print_env, run, stop_holder,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code of a program that Ctrl-C ended, as shells report it (128 + SIGINT).
const INTERRUPTED: u8 = 130;
/// A clean stop of everything never takes this long.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Run a real Kubernetes control plane on this machine, with or without Daypass
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build missing programs and print the folders of all of them
    Tools,
    /// Run a control plane until Ctrl-C
    Up {
        #[command(flatten)]
        state: State,
        /// Add a node that runs pods, in separate namespaces (needs Linux and root)
        #[arg(long)]
        node: bool,
        /// Load this image for the node's pods: an OCI archive, such as `make image` writes
        #[arg(long, requires = "node", value_name = "ARCHIVE")]
        image: Option<PathBuf>,
    },
    /// List what this machine lacks to run a node, and fail if it lacks something
    CheckNode,
    /// Stop the process that uses the state folder
    Down(State),
    /// Run a control plane with the chart and Daypass until Ctrl-C
    Run {
        #[command(flatten)]
        state: State,
        /// The path of Daypass [default: `daypass` in the folder of this program]
        #[arg(long)]
        daypass_bin: Option<PathBuf>,
        /// The folder of the chart to install
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/daypass"))]
        chart: PathBuf,
        /// Restart Daypass when it dies, instead of failing
        #[arg(long)]
        restart: bool,
    },
    /// Print shell exports for the Daypass that uses the state folder
    Env(State),
}

#[derive(Debug, Args)]
struct State {
    /// The state folder, for all files of one control plane
    #[arg(long = "state", value_name = "DIR", default_value = DEFAULT_STATE)]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let interrupt = Arc::new(AtomicBool::new(false));
    match execute(Cli::parse().command, &interrupt) {
        Ok(()) => ExitCode::SUCCESS,
        // The user wanted the interruption, so do not report what failed because of it.
        Err(_) if interrupt.load(Ordering::Relaxed) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, interrupt: &Arc<AtomicBool>) -> Result<()> {
    match command {
        Command::Tools => print_tools(),
        Command::Up { state, node, image } => up(&state.dir, node, image.as_deref(), interrupt),
        Command::CheckNode => check_node(),
        Command::Down(state) => down(&state.dir),
        Command::Run { state, daypass_bin, chart, restart } => {
            let daypass = match daypass_bin {
                Some(path) => path,
                None => std::env::current_exe()?.with_file_name("daypass"),
            };
            let daypass = daypass.canonicalize().with_context(|| format!("no program at {}", daypass.display()))?;
            // Before the signal handlers, so that Ctrl-C ends a build at once.
            Tools::helm()?;
            let tools = Tools::find_or_build()?;
            handle_signals(interrupt)?;
            let interrupt = Arc::clone(interrupt);
            run(&tools, &RunOptions { state_dir: state.dir, daypass, chart, restart, interrupt })
        }
        Command::Env(state) => print_env(&state.dir),
    }
}

fn print_tools() -> Result<()> {
    let helm = Tools::helm()?;
    let tools = Tools::find_or_build()?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", tools.dir().display())?;
    Ok(writeln!(out, "{}", helm.parent().unwrap_or(&helm).display())?)
}

fn up(state_dir: &Path, with_node: bool, image: Option<&Path>, interrupt: &Arc<AtomicBool>) -> Result<()> {
    let tools = Tools::find_or_build()?;
    if with_node {
        Node::prepare()?;
    }
    handle_signals(interrupt)?;
    let options = Options { interrupt: Arc::clone(interrupt), sandbox: with_node, ..Options::default() };
    let plane = ControlPlane::start(&tools, state_dir, options)?;
    let mut node = if with_node { Some(Node::start(&plane)?) } else { None };
    if let (Some(node), Some(image)) = (&node, image) {
        node.load_image(&image.canonicalize().with_context(|| format!("no image at {}", image.display()))?)?;
    }
    let mut out = std::io::stdout();
    writeln!(out, "ready: {}\nkubeconfig: {}", plane.server_url(), plane.kubeconfig().display())?;
    if with_node {
        // The kubeconfig's address is valid in the sandbox only.
        let shell = plane.command(Path::new("sh"));
        let shell: Vec<_> =
            std::iter::once(shell.get_program()).chain(shell.get_args()).map(|word| word.to_string_lossy()).collect();
        let (kubeconfig, path) = (plane.kubeconfig(), plane.tools().dir());
        writeln!(
            out,
            "shell: KUBECONFIG='{}' PATH=\"{}:$PATH\" {}",
            kubeconfig.display(),
            path.display(),
            shell.join(" ")
        )?;
    }
    while !interrupt.load(Ordering::Relaxed) {
        plane.check()?;
        node.as_mut().map_or(Ok(()), Node::check)?;
        thread::sleep(Duration::from_millis(100));
    }
    drop(node);
    plane.stop()
}

fn check_node() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this machine cannot run a node:\n  {}", missing.join("\n  "))
}

fn down(state_dir: &Path) -> Result<()> {
    let message = if stop_holder(state_dir, STOP_TIMEOUT)? { "stopped" } else { "nothing is running there" };
    Ok(writeln!(std::io::stdout(), "{message}")?)
}

/// The first signal requests a clean stop. A second one ends this process and its children at once.
fn handle_signals(interrupt: &Arc<AtomicBool>) -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(interrupt))?;
        flag::register(signal, Arc::clone(interrupt))?;
    }
    Ok(())
}
