//! `daypass-local`: the command behind `make run`, `make env`, `make stop` and `make tools`.

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

/// What a shell answers for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// Longer than a clean stop of everything takes at worst.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// A real Kubernetes control plane on this machine, and Daypass with it.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build what is missing and print the folders of the programs
    Tools,
    /// Start a control plane and keep it until Ctrl-C
    Up {
        #[command(flatten)]
        state: State,
        /// With a node that runs pods, in namespaces of its own (Linux, root)
        #[arg(long)]
        node: bool,
        /// An image for its pods: an OCI archive, as `make image` writes it
        #[arg(long, requires = "node", value_name = "ARCHIVE")]
        image: Option<PathBuf>,
    },
    /// Say what this machine lacks to run a node; fails where it lacks something
    CheckNode,
    /// Stop whatever runs in the state folder
    Down(State),
    /// Start a control plane, install the chart and start Daypass, until Ctrl-C
    Run {
        #[command(flatten)]
        state: State,
        /// The program to run [default: the `daypass` beside this one]
        #[arg(long)]
        daypass_bin: Option<PathBuf>,
        /// The chart to install
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/daypass"))]
        chart: PathBuf,
        /// Start Daypass again when it dies by itself, instead of ending
        #[arg(long)]
        restart: bool,
    },
    /// Print shell exports for what runs in the state folder
    Env(State),
}

#[derive(Debug, Args)]
struct State {
    /// The folder of everything that one control plane writes
    #[arg(long = "state", value_name = "DIR", default_value = DEFAULT_STATE)]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let interrupt = Arc::new(AtomicBool::new(false));
    match execute(Cli::parse().command, &interrupt) {
        Ok(()) => ExitCode::SUCCESS,
        // Whatever failed because of it, the interruption is what the user wanted.
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
            // Built before the handlers are there, so that Ctrl-C ends a build at once.
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
        // The kubeconfig's address is one in the sandbox.
        let shell = plane.command(Path::new("sh"));
        let shell: Vec<_> =
            std::iter::once(shell.get_program()).chain(shell.get_args()).map(|word| word.to_string_lossy()).collect();
        let (kubeconfig, path) = (plane.kubeconfig(), plane.tools().dir());
        writeln!(
            out,
            "a shell in it: KUBECONFIG='{}' PATH=\"{}:$PATH\" {}",
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
    bail!("a node cannot run on this machine:\n  {}", missing.join("\n  "))
}

fn down(state_dir: &Path) -> Result<()> {
    let said = if stop_holder(state_dir, STOP_DEADLINE)? { "stopped" } else { "nothing is running there" };
    Ok(writeln!(std::io::stdout(), "{said}")?)
}

/// The first signal asks for a clean stop; a second one ends at once, and the children with us.
fn handle_signals(interrupt: &Arc<AtomicBool>) -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(interrupt))?;
        flag::register(signal, Arc::clone(interrupt))?;
    }
    Ok(())
}
