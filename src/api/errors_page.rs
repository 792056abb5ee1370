//! The page `docs/errors.md`, written from the table of error codes.

use std::fmt::Write as _;

use super::error_codes::{Code, Entry};

/// The page without its codes.
const TEMPLATE: &str = include_str!("errors_page.md");
/// Where the codes stand in it.
const MARK: &str = "{codes}";
/// How long a line may be, in characters.
const WIDTH: usize = 119;

/// The page of error codes, as Markdown.
pub fn errors_page() -> String {
    let mut codes =
        "<!-- Generated: change src/api/error_codes.rs or src/api/errors_page.md, then `make generate`. -->\n"
            .to_owned();
    for Entry { code, status, title, cause, remedy } in Code::ALL.iter().map(|code| code.entry()) {
        let (cause, remedy) = (item("Cause", cause), item("Remedy", remedy));
        // A String takes everything that is written to it.
        let _ = write!(codes, "\n## `{code}`\n{}. {title}.\n\n{cause}{remedy}", status.as_u16());
    }
    TEMPLATE.replace(MARK, codes.trim_end())
}

/// An item of a list, wrapped. Code between backticks is not broken.
fn item(name: &str, text: &str) -> String {
    let mut lines = vec![format!("- **{name}:**")];
    let mut word = String::new();
    for part in text.split(' ') {
        if !word.is_empty() {
            word.push(' ');
        }
        word.push_str(part);
        if word.matches('`').count() % 2 == 1 {
            continue;
        }
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(format!("  {word}")),
        }
        word.clear();
    }
    lines.push(word);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_every_code_in_lines_of_bounded_length() {
        let page = errors_page();
        for code in Code::ALL {
            assert!(page.contains(&format!("\n## `{}`\n", code.as_str())), "{code:?}");
        }
        assert!(!page.contains(MARK));
        for line in page.lines() {
            assert!(line.chars().count() <= WIDTH && line.trim_end() == line, "{line}");
        }
    }

    #[test]
    fn long_text_is_wrapped_and_code_stays_in_one_line() {
        let text = format!("{} `a b c d`.", "word ".repeat(20).trim_end());
        let wrapped = item("Cause", &text);
        assert_eq!(wrapped, format!("- **Cause:** {}\n  `a b c d`.\n", "word ".repeat(20).trim_end()));
    }
}
