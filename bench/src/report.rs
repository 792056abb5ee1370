//! The results: one table with the ratio in the last column, as Markdown and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::load::Samples;

/// How much of a note the page shows, in characters: a line.
const MAX_NOTE: usize = 110;

/// Subjects, each with a value for each turn.
pub(crate) type Series = Vec<(String, Vec<f64>)>;

/// One quantity, measured for several subjects.
pub(crate) struct Group<'a> {
    pub(crate) scenario: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// A subject and what is wanted of it. Nothing checks it.
    pub(crate) goal: (&'a str, &'a str),
    /// The subject that the others are compared with, turn by turn.
    pub(crate) reference: Option<&'a str>,
    pub(crate) series: Series,
}

impl<'a> Group<'a> {
    /// One value, compared with nothing.
    pub(crate) fn single(
        scenario: &'static str,
        what: &str,
        unit: &'static str,
        subject: &'a str,
        value: f64,
    ) -> Self {
        let series = vec![(subject.to_owned(), vec![value])];
        Self { scenario, what: what.to_owned(), unit, goal: ("", ""), reference: None, series }
    }
}

/// A line of the table.
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) subject: String,
    pub(crate) goal: String,
    pub(crate) turns: Vec<f64>,
    pub(crate) value: f64,
    /// The ratios to the reference, turn by turn.
    ratios: Vec<f64>,
    pub(crate) is_reference: bool,
}

/// All results so far.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    failures: Vec<String>,
}

impl Report {
    /// Adds a quantity. A subject without values is left out.
    pub(crate) fn add(&mut self, group: Group<'_>) {
        let reference = group.series.iter().find(|(name, _)| Some(name.as_str()) == group.reference);
        let reference = reference.map(|(_, turns)| turns.clone()).unwrap_or_default();
        for (subject, turns) in group.series {
            if turns.is_empty() {
                continue;
            }
            let value = median(&turns).unwrap_or(f64::NAN);
            let is_reference = Some(subject.as_str()) == group.reference;
            let pairs = turns.iter().zip(&reference).map(|(own, other)| own / other);
            self.rows.push(Row {
                scenario: group.scenario,
                what: group.what.clone(),
                unit: group.unit,
                goal: if subject == group.goal.0 { group.goal.1.to_owned() } else { String::new() },
                ratios: if is_reference { Vec::new() } else { pairs.filter(|ratio| ratio.is_finite()).collect() },
                subject,
                value,
                turns,
                is_reference,
            });
        }
    }

    /// Notes calls that failed; their times count nowhere.
    pub(crate) fn failures(&mut self, who: &str, samples: &Samples) {
        if let Some(error) = &samples.error {
            let failure =
                format!("{who}: {} of {} calls: {error}", samples.failed, samples.failed + samples.taken.len());
            self.note(failure);
        }
    }

    /// Notes something that went wrong.
    pub(crate) fn note(&mut self, failure: String) {
        crate::progress(&format!("FAILED: {failure}"));
        self.failures.push(failure);
    }

    /// The table, in Markdown.
    pub(crate) fn table(&self) -> String {
        let header = ["what", "subject", "value", "least to most", "goal", "ratio"].map(str::to_owned);
        let mut lines = vec![header];
        let mut last = String::new();
        for row in &self.rows {
            let what = format!("{}: {}", row.scenario, row.what);
            lines.push([
                if what == last { String::new() } else { what.clone() },
                row.subject.clone(),
                if row.value.is_finite() {
                    format!("{} {}", number(row.value), row.unit).trim().to_owned()
                } else {
                    number(row.value)
                },
                spread(&row.turns),
                row.goal.clone(),
                median(&row.ratios).map_or(String::new(), |ratio| {
                    let spread = spread(&row.ratios);
                    format!("{} {}", number(ratio), if spread.is_empty() { spread } else { format!("({spread})") })
                        .trim()
                        .to_owned()
                }),
            ]);
            last = what;
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3, 4, 5].map(width);
        let mut table = String::new();
        for (number, line) in lines.iter().enumerate() {
            let cells = line.iter().zip(widths).map(|(cell, width)| format!(" {cell:width$} "));
            let _ = writeln!(table, "|{}|", cells.collect::<Vec<_>>().join("|"));
            if number == 0 {
                let rules = widths.map(|width| "-".repeat(width + 2));
                let _ = writeln!(table, "|{}|", rules.join("|"));
            }
        }
        table
    }

    /// Failed calls, as a list in Markdown.
    pub(crate) fn notes(&self) -> String {
        let line = |failure: &String| failure.chars().take(MAX_NOTE).collect::<String>();
        self.failures.iter().map(|failure| format!("- {}\n", line(failure))).collect()
    }

    /// Everything, as JSON.
    pub(crate) fn json(&self, about: &Value) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "scenario": row.scenario, "what": row.what, "subject": row.subject, "unit": row.unit,
                "value": row.value, "turns": row.turns, "goal": row.goal, "ratio": median(&row.ratios),
                "ratios": row.ratios,
            })
        });
        json!({"about": about, "rows": rows.collect::<Vec<_>>(), "failures": self.failures})
    }
}

/// The median of the finite values; `None` if there are none.
fn median(values: &[f64]) -> Option<f64> {
    let mut finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    let (values, middle) = (&finite, finite.len() / 2);
    match finite.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

fn spread(values: &[f64]) -> String {
    if values.len() < 2 {
        return String::new();
    }
    // NaN counts for nothing in `min` and `max`.
    let (least, most) = (values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max));
    let (Some(least), Some(most)) = (least, most) else { return String::new() };
    format!("{} to {}", number(least), number(most))
}

/// Three significant digits.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "none".to_owned();
    }
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 10.0 => 2,
        medium if medium < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_compare_turns_in_pairs() {
        let mut report = Report::default();
        let series =
            vec![("a".to_owned(), vec![1.0, 2.0]), ("b".to_owned(), vec![2.0, 6.0]), ("c".to_owned(), vec![])];
        let what = "w".to_owned();
        report.add(Group { scenario: "s", what, unit: "ms", goal: ("b", "≤ 1"), reference: Some("a"), series });
        let table = report.table();
        let last = table.lines().last().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(last, "| | b | 4.00 ms | 2.00 to 6.00 | ≤ 1 | 2.50 (2.00 to 3.00) |");
        assert_eq!(table.lines().count(), 4, "nothing was measured for c");
    }
}
