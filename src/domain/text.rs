//! Texts that people are shown: which characters they may have, and how to show a text that has others.

use std::ops::RangeInclusive;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

type Ranges = &'static [RangeInclusive<char>];

/// Arabic and its relatives, Indic scripts, Burmese, Khmer, Mongolian and Javanese: joiners shape their letters, and
/// real names have them. UAX #31 (section 2.3) is narrower and would refuse Bengali names.
const JOINING: Ranges = &[
    '\u{620}'..='\u{6DC}',
    '\u{6DE}'..='\u{70E}',
    '\u{710}'..='\u{88F}',
    '\u{892}'..='\u{8E1}',
    '\u{8E3}'..='\u{DFF}',
    '\u{1000}'..='\u{109F}',
    '\u{1780}'..='\u{17B3}',
    '\u{17B6}'..='\u{17D3}',
    MONGOLIAN,
    '\u{A980}'..='\u{A9DF}',
];
const MONGOLIAN: RangeInclusive<char> = '\u{1820}'..='\u{18AA}';
const HAN: Ranges = &['\u{2E80}'..='\u{9FFF}', '\u{F900}'..='\u{FAFF}', '\u{20000}'..='\u{3FFFD}'];
/// Also signs that phones show as emoji, such as ™ and ©.
const EMOJI: Ranges = &[
    '\u{A9}'..='\u{A9}',
    '\u{AE}'..='\u{AE}',
    '\u{203C}'..='\u{203C}',
    '\u{2049}'..='\u{2049}',
    '\u{2122}'..='\u{2122}',
    '\u{2139}'..='\u{2139}',
    '\u{2190}'..='\u{27FF}',
    '\u{2900}'..='\u{2BFF}',
    '\u{3297}'..='\u{3299}',
    '\u{1F000}'..='\u{1FAFF}',
];

/// The same rule as a pattern for the CRDs, as Go's RE2 reads it. Without unassigned characters: RE2 has no class for
/// them before Go 1.25 (Kubernetes 1.35), and each Unicode version assigns more.
pub const VISIBLE_PATTERN: &str = concat!(
    r"^(?:[^\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}\x{034F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{2065}",
    r"\x{2800}\x{3164}\x{FE00}-\x{FE0F}\x{FFA0}\x{FFF0}-\x{FFF8}\x{FFFC}\x{13441}\x{13442}\x{16FE4}\x{1D159}",
    r"\x{E0000}-\x{E0FFF}]",
    r"|[\x{0620}-\x{06DC}\x{06DE}-\x{070E}\x{0710}-\x{088F}\x{0892}-\x{08E1}\x{08E3}-\x{0DFF}",
    r"\x{1000}-\x{109F}\x{1780}-\x{17B3}\x{17B6}-\x{17D3}\x{1820}-\x{18AA}\x{A980}-\x{A9DF}][\x{200C}\x{200D}]",
    r"|[\x{1820}-\x{18AA}][\x{180B}-\x{180F}]",
    r"|[\x{2E80}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{3FFFD}][\x{FE00}-\x{FE02}\x{E0100}-\x{E01EF}]",
    r"|[\x{00A9}\x{00AE}\x{203C}\x{2049}\x{2122}\x{2139}\x{2190}-\x{27FF}\x{2900}-\x{2BFF}\x{3297}-\x{3299}",
    r"\x{1F000}-\x{1FAFF}](?:[\x{FE0E}\x{FE0F}]|\x{FE0F}?\x{200D}))*$",
);

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Longer than this many characters.
    #[error("must be at most {0} characters")]
    TooLong(usize),
    /// Contains this hidden character.
    #[error("must not contain control or invisible characters: U+{:04X}", u32::from(*.0))]
    Hidden(char),
}

/// Checks a text that people will see. `max` is in characters.
pub fn check_text(text: &str, max: usize) -> Result<(), InvalidText> {
    if text.chars().count() > max {
        return Err(InvalidText::TooLong(max));
    }
    match judged(text).find(|(_, hidden)| *hidden) {
        Some((character, _)) => Err(InvalidText::Hidden(character)),
        None => Ok(()),
    }
}

/// Whether a text fits and has no control characters. For names that people are not shown, such as groups: they come
/// from an identity provider, and Kubernetes compares them byte by byte.
pub fn is_bounded(text: &str, max: usize) -> bool {
    text.chars().count() <= max && !text.contains(char::is_control)
}

/// The text with hidden characters escaped, such as `\u{202e}`. For texts that [`check_text`] never saw: paths, the
/// user names of Kubernetes, and what an earlier version of Daypass stored.
pub fn escape_hidden(text: &str) -> String {
    let mut escaped = String::new();
    for (character, hidden) in judged(text) {
        if hidden { escaped.extend(character.escape_unicode()) } else { escaped.push(character) }
    }
    escaped
}

/// The characters, and whether each is hidden where it stands.
fn judged(text: &str) -> impl Iterator<Item = (char, bool)> {
    // The character before, and the one before that if an emoji's variation selector is between.
    let (mut before, mut base) = ('\0', '\0');
    text.chars().map(move |character| {
        let hidden = is_hidden(character) && !shapes(character, before, base);
        before = character;
        if character != '\u{FE0F}' {
            base = character;
        }
        (character, hidden)
    })
}

/// Whether nobody sees the character, or it changes the order in which others are shown. With it, a text could look
/// like another one, forge a log line or control a terminal.
fn is_hidden(character: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(character);
    // Control, format (directions, zero width, tags), private use, unassigned.
    GeneralCategoryGroup::Other.contains(category)
        || matches!(category, GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator)
        // Also fillers and variation selectors.
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
        // Symbols that are blank: a Braille pattern, a musical note, fillers of Egyptian and Khitan, and what stands
        // for an object.
        || matches!(character, '\u{2800}' | '\u{1D159}' | '\u{13441}' | '\u{13442}' | '\u{16FE4}' | '\u{FFFC}')
}

/// Whether a hidden character changes how the visible one before it looks, as real names need.
fn shapes(hidden: char, before: char, base: char) -> bool {
    let is_in = |ranges: Ranges, character| ranges.iter().any(|range| range.contains(&character));
    match hidden {
        '\u{200C}' => is_in(JOINING, before),
        '\u{200D}' => is_in(JOINING, before) || is_in(EMOJI, base),
        '\u{180B}'..='\u{180F}' => MONGOLIAN.contains(&before),
        '\u{FE00}'..='\u{FE02}' | '\u{E0100}'..='\u{E01EF}' => is_in(HAN, before),
        '\u{FE0E}' | '\u{FE0F}' => is_in(EMOJI, before),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn text_is_bounded_in_characters() {
        assert_eq!(check_text(&"ü".repeat(255), 255), Ok(()));
        assert_eq!(check_text(&"ü".repeat(256), 255), Err(InvalidText::TooLong(255)));
    }

    #[test]
    fn names_in_any_script_are_visible() {
        for name in [
            "Zoë O’Brien-Łukasz",
            "José",
            "Jose\u{301}",
            "Nguyễn Thị Minh",
            "Ольга",
            "Γιώργος",
            "王小明",
            "山田　太郎",
            "葛\u{E0100}城",
            "𠮷野家",
            "김철수",
            "สมชาย ใจดี",
            "ሰላም",
            "משה כהן",
            "مُحَمَّد",
            "علی\u{200C}رضا",
            "کار\u{200C}آفرین",
            "ه\u{200D}",
            "ශ්\u{200D}රියානි",
            "অনির্বাণ র\u{200D}্যাচেল",
            "ന്\u{200D} അനില്\u{200D}",
            "राजेश क्\u{200D}",
            "ប៉\u{200C}ី",
            "ᠰᠠᠷᠠ\u{180E}ᠠ",
            "⚠\u{FE0F} urgent",
            "Talend™\u{FE0F} ©\u{FE0F}",
            "မြန်မာ\u{200C}",
            "ꦄꦏ꧀\u{200C}",
            "👩\u{200D}💻",
            "❤\u{FE0F}\u{200D}🔥",
            "👍🏽",
            "",
            " ",
            "<b> & \"quotes\"",
        ] {
            assert_eq!(check_text(name, 255), Ok(()), "{name}");
            assert_eq!(escape_hidden(name), name);
        }
    }

    #[test]
    fn hidden_character_is_refused_and_named() {
        for hidden in [
            // Controls, and what breaks lines.
            '\0',
            '\t',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{2028}',
            '\u{2029}',
            // Directions.
            '\u{61C}',
            '\u{200E}',
            '\u{200F}',
            '\u{202A}',
            '\u{202E}',
            '\u{2066}',
            '\u{2069}',
            '\u{206F}',
            // Zero width and blank.
            '\u{AD}',
            '\u{34F}',
            '\u{115F}',
            '\u{1160}',
            '\u{17B4}',
            '\u{180B}',
            '\u{180E}',
            '\u{200B}',
            '\u{200C}',
            '\u{200D}',
            '\u{2060}',
            '\u{2061}',
            '\u{2065}',
            '\u{2800}',
            '\u{3164}',
            '\u{FEFF}',
            '\u{FFA0}',
            '\u{FFF9}',
            '\u{FFFC}',
            '\u{13441}',
            '\u{13442}',
            '\u{16FE4}',
            '\u{1BCA0}',
            '\u{1D159}',
            '\u{1D173}',
            '\u{E0001}',
            '\u{E0020}',
            '\u{E007F}',
            // Private use and unassigned.
            '\u{E000}',
            '\u{F8FF}',
            '\u{F0000}',
            '\u{10FFFD}',
            '\u{378}',
            '\u{FDD0}',
            '\u{FFFF}',
            '\u{E0080}',
        ] {
            for (before, after) in [("a", "b"), ("", ""), ("王", "明"), ("", "علی")] {
                let text = format!("{before}{hidden}{after}");
                let escaped = format!("{before}{}{after}", hidden.escape_unicode());
                assert_eq!(check_text(&text, 255), Err(InvalidText::Hidden(hidden)), "{escaped}");
                assert_eq!(escape_hidden(&text), escaped);
            }
        }
        // Out of context.
        for text in ["a\u{FE0F}", "❤\u{FE0F}\u{FE0F}", "王\u{FE0F}\u{200D}", "ا\u{200C}\u{200C}", "a\u{200D}💻"]
        {
            assert!(check_text(text, 255).is_err(), "{}", text.escape_unicode());
        }
        let error = check_text("a\u{202E}b", 255).unwrap_err().to_string();
        assert_eq!(error, "must not contain control or invisible characters: U+202E");
        assert_eq!(escape_hidden("\u{202E}a\u{202E}"), r"\u{202e}a\u{202e}");
    }

    #[test]
    fn schema_and_api_agree_on_assigned_characters() {
        let schema = Regex::new(VISIBLE_PATTERN).unwrap();
        let contexts = ["", "a", "ا", "ᠰ", "王", "⚠", "⚠\u{FE0F}", "ا\u{200C}", "™", "မ", "ꦏ"];
        for any in (0..=0x1_FFFF).chain(0xE_0000..=0xE_1000).filter_map(char::from_u32) {
            let contexts = if is_hidden(any) { &contexts[..] } else { &contexts[..1] };
            for before in contexts {
                let text = format!("{before}{any}");
                let is_unassigned = CodePointMapData::<GeneralCategory>::new().get(any) == GeneralCategory::Unassigned;
                let agree = check_text(&text, 3).is_ok() == schema.is_match(&text);
                assert!(agree || is_unassigned, "{}", text.escape_unicode());
            }
        }
    }
}
