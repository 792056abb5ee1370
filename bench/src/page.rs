//! What a run leaves: results.json, table.md, charts, and a page in docs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::plot::bars;
use crate::report::{Report, Row};

/// A page in docs.
pub(crate) struct Page {
    name: &'static str,
    /// Without results: `{about}`, `{charts}`, `{table}` and `{failures}` stand for them.
    text: &'static str,
}

/// The page of `make bench`.
pub(crate) const ALL: Page = Page { name: "benchmarks", text: include_str!("page.md") };
/// The page of `make bench-gateway`.
pub(crate) const GATEWAY: Page = Page { name: "gateway-benchmarks", text: include_str!("gateway.md") };

/// The machine and the versions.
pub(crate) fn machine(program: &Path) -> Result<Value> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0 / 1024.0;
    let says = |program: &Path, args: &[&str]| -> Result<String> {
        let output = Command::new(program).args(args).output().with_context(|| program.display().to_string())?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    Ok(json!({
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism()?.get(),
        "memory": format!("{memory:.0} GiB"),
        "linux": read("/proc/sys/kernel/osrelease").trim(),
        "daypass": says(program, &["--version"])?,
        "commit": says(Path::new("git"), &["describe", "--always", "--dirty"]).unwrap_or_default(),
        "date": says(Path::new("date"), &["-u", "+%Y-%m-%d"]).unwrap_or_default(),
    }))
}

/// Writes results.json, table.md and the charts.
pub(crate) fn write(report: &Report, about: &Value, out: &Path) -> Result<()> {
    write_results(report, about, out)?;
    Ok(fs::write(out.join("table.md"), report.table())?)
}

/// Writes a page, and what it shows into a folder beside it.
pub(crate) fn write_docs(page: &Page, report: &Report, about: &Value, docs: &Path) -> Result<()> {
    write_results(report, about, &docs.join(page.name))?;
    Ok(fs::write(docs.join(page.name).with_extension("md"), page.filled(report, about))?)
}

fn write_results(report: &Report, about: &Value, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("results.json"), format!("{:#}\n", report.json(about)))?;
    for (name, chart) in charts(report) {
        fs::write(folder.join(format!("{name}.svg")), chart)?;
    }
    Ok(())
}

/// A chart for each scenario.
fn charts(report: &Report) -> Vec<(&'static str, String)> {
    let mut names: Vec<&'static str> = report.rows.iter().map(|row| row.scenario).collect();
    names.dedup();
    let of = |name| {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.scenario == name).collect();
        (name, bars(name, &rows))
    };
    names.into_iter().map(of).collect()
}

impl Page {
    fn filled(&self, report: &Report, about: &Value) -> String {
        let fields = about.as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let about: String = fields.map(|(name, value)| format!("| {name} | {} |\n", text(value))).collect();
        let chart = |name: &str| format!("![{name}]({}/{name}.svg)\n\n", self.name);
        let charts: String = charts(report).iter().map(|(name, _)| chart(name)).collect();
        let failures = match report.notes() {
            notes if notes.is_empty() => "No call failed, and every section was finished.\n".to_owned(),
            notes => format!("Calls that failed count nowhere in the table. These went wrong:\n\n{notes}"),
        };
        let filled = self.text.replace("{about}\n", &about).replace("{charts}\n\n", &charts);
        filled.replace("{table}\n", &report.table()).replace("{failures}\n", &failures)
    }
}
