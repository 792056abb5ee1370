//! Bar charts in SVG, one for each scenario. Written by hand: a plotting crate would be larger than this program.

use std::fmt::Write as _;

use crate::report::{Row, number};

const WIDTH: usize = 900;
/// Where the bars begin, and how long the longest is.
const LEFT: usize = 330;
const LONGEST: f64 = 440.0;
const LINE: usize = 18;

/// One chart of these rows. The bars of each quantity have a scale of their own.
pub(crate) fn bars(title: &str, rows: &[&Row]) -> String {
    let mut svg = String::new();
    let mut y = 2 * LINE;
    let mut at = 0;
    while at < rows.len() {
        let group: Vec<&&Row> = rows[at..].iter().take_while(|row| row.what == rows[at].what).collect();
        text(&mut svg, 10, y, "start", "bold", &format!("{} ({})", rows[at].what, rows[at].unit));
        y += LINE;
        let most =
            group.iter().map(|row| row.value).filter(|value| value.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
        for row in group.iter() {
            let colour = colour(row);
            let length = if row.value.is_finite() { (row.value / most * LONGEST) as usize } else { 0 };
            text(&mut svg, LEFT - 8, y, "end", "normal", &row.subject);
            let (top, height) = (y - LINE + 6, LINE - 5);
            let _ =
                writeln!(svg, r#"<rect x="{LEFT}" y="{top}" width="{length}" height="{height}" fill="{colour}"/>"#);
            text(&mut svg, LEFT + length + 6, y, "start", "normal", &number(row.value));
            y += LINE;
        }
        y += LINE / 2;
        at += group.len();
    }
    let head = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\"\n\
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#fff\"/>\n"
    );
    format!("{head}{svg}</svg>\n")
}

/// Daypass is blue, what it is compared with is grey.
fn colour(row: &Row) -> &'static str {
    match row.subject.as_str() {
        "OpenBao" => "#dd6b20",
        subject if subject.ends_with("objects only") => "#9aa5b1",
        _ if row.is_reference => "#52606d",
        _ => "#2b6cb0",
    }
}

fn text(svg: &mut String, x: usize, y: usize, anchor: &str, weight: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\">{text}</text>");
}
